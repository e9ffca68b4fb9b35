"""`python -m lambert` is the same as `lambert`."""

from __future__ import annotations

import sys

from lambert.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
