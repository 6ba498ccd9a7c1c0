"""The first bytes of many files, fetched ahead by a few threads: a search waits for disks.

Only reading runs beside; what the bytes mean is worked out by the caller, one file after the other, since
that is bound by the interpreter. On a network drive, where each file costs some milliseconds, this is what
counts.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Final

HEAD_BYTES: Final = 1 << 16
"""A CT slice's header takes 2 to 20 kB; those of many frames are longer and read from the file itself."""

_THREADS: Final = 16
_AHEAD: Final = 64  # heads held at once: bounds the memory to 4 MiB


class HeadTooShort(Exception):  # noqa: N818 (told by name, never shown)
    """More was asked for than the first bytes; the whole file has to be read."""


@dataclass(frozen=True)
class Head:
    """The first bytes of one file.

    Parameters
    ----------
    content : up to `HEAD_BYTES`.
    whole : the file has no more than these.
    error : why it could not be read.
    """

    path: Path
    content: bytes = b""
    whole: bool = True
    error: OSError | None = None

    def open(self) -> io.BytesIO:
        """The bytes as a file that raises `HeadTooShort` where the real one would go on."""
        return io.BytesIO(self.content) if self.whole else _Beginning(self.content)


class _Beginning(io.BytesIO):
    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if size is None or size < 0 or len(content) < size:
            raise HeadTooShort
        return content


def read_head(path: Path) -> Head:
    """The first bytes of a file; one that cannot be read has an `error`."""
    try:
        with path.open("rb") as file:
            content = file.read(HEAD_BYTES + 1)
    except OSError as error:
        return Head(path, error=error)
    return Head(path, content[:HEAD_BYTES], whole=len(content) <= HEAD_BYTES)


def read_heads(files: Iterable[Path]) -> Iterator[Head]:
    """The first bytes of every file, in order."""
    to_come = iter(files)
    waiting: deque[Future[Head]] = deque()
    pool = ThreadPoolExecutor(_THREADS)
    try:
        waiting.extend(pool.submit(read_head, path) for path in islice(to_come, _AHEAD))
        while waiting:
            yield waiting.popleft().result()
            waiting.extend(pool.submit(read_head, path) for path in islice(to_come, 1))
    finally:
        pool.shutdown(cancel_futures=True)
