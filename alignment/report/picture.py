"""Draw the scores by stage (`ladder.json`) of several runs of a recipe with different seeds as one SVG file.

python -m alignment.report.picture runs/*/ladder.json --metrics fim.pass@1=FIM instruct.pass@1 --out ladder.svg
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from alignment.files import write_text
from alignment.report.charts import ladder_picture


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m alignment.report.picture",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("ladders", nargs="+", type=Path, help="the ladder.json of each seed")
    parser.add_argument("--metrics", nargs="+", required=True, help="METRIC or METRIC=TITLE; each gets one panel")
    parser.add_argument("--out", type=Path, required=True, help="the SVG file to write")
    options = parser.parse_args(arguments)
    try:
        ladders = [json.loads(path.read_text(encoding="utf-8")) for path in options.ladders]
        picture = ladder_picture(ladders, options.metrics)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    write_text(options.out, picture)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
