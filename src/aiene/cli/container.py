"""What the container image runs: the commands of today, and the published command lines beside them.

docker run IMAGE run /in -o /out                      aiene run
docker run IMAGE --input-dir /in --output-dir /out    run_e2e.py, word for word
docker run IMAGE run_benchmark.py --image-dir ...     run_benchmark.py
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

_OURS: Final = frozenset({"-h", "--help", "--version"})
_PYTHON: Final = frozenset({"python", "python3"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Hand the words of a command line to whom they are meant for; the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if words and words[0] in _PYTHON:
        words = words[1:]
    if words and words[0].rsplit("/", 1)[-1] == "run_benchmark.py":
        from aiene.cli import legacy

        return legacy.benchmark_main(words[1:])
    named = bool(words) and words[0].rsplit("/", 1)[-1] == "run_e2e.py"
    if named or (words and words[0].startswith("-") and words[0] not in _OURS):
        from aiene.cli import legacy

        return legacy.main(words[1:] if named else words)
    from aiene.cli.app import app

    if words and words[0] == "aiene":
        words = words[1:]
    app(words or ["--help"], prog_name="aiene")  # ends the process with the command's code
    return 0


if __name__ == "__main__":
    sys.exit(main())
