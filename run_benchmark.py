"""The published benchmark's command line; see `aiene benchmark --help` for that of today."""

import sys

from aiene.cli.published_benchmark import main

if __name__ == "__main__":
    sys.exit(main())
