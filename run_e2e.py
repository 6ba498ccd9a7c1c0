"""The published command line, kept word for word; see `aiene run --help` for that of today."""

import sys

from aiene.cli.container import e2e_main as main

if __name__ == "__main__":
    sys.exit(main())
