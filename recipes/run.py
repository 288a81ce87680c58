"""The launch target: `accelerate launch --config_file accelerate_configs/cpu.yaml recipes/run.py RECIPE [options]`.

The same as `align run RECIPE`, for people who start their jobs with Accelerate.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a checkout needs no installation

from alignment.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", "--launched", *sys.argv[1:]]))
