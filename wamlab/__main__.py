"""`python -m wamlab` is `wam`."""

from __future__ import annotations

import sys

from wamlab.cli import main

if __name__ == "__main__":
    sys.exit(main())
