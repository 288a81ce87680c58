"""`python -m alignment.cli` is `align`."""

from alignment.cli import main

raise SystemExit(main())
