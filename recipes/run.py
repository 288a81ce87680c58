"""Run a recipe: `accelerate launch --config_file accelerate_configs/cpu.yaml recipes/run.py RECIPE [options]`.

Does the same as `align run RECIPE`, for jobs that are started with Accelerate.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # works from a checkout without installation

from alignment.cli import main

if __name__ == "__main__":
    raise SystemExit(main(["run", "--launched", *sys.argv[1:]]))
