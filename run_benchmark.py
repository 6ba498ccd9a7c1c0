"""The published benchmark's command line; see `aiene benchmark --help` for that of today."""

import sys

from aiene.cli.container import benchmark_main as main

if __name__ == "__main__":
    sys.exit(main())
