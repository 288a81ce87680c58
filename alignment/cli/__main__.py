"""Run the command line `align` as `python -m alignment.cli`."""

from alignment.cli import main

raise SystemExit(main())
