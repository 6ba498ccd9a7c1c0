"""How pydicom fails on broken files, and how it is kept from talking about odd ones."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from pydicom.errors import BytesLengthException, InvalidDicomError

DAMAGED: Final = (
    InvalidDicomError,
    BytesLengthException,
    EOFError,
    OSError,
    struct.error,
    zlib.error,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    AttributeError,
    NotImplementedError,
    RuntimeError,
    OverflowError,
)
"""What pydicom and its decoders raise on files that are no sound DICOM (by cutting and garbling)."""

ODD_VALUE: Final = (BytesLengthException, ValueError, TypeError, AttributeError, NotImplementedError)
"""What pydicom raises where one attribute cannot be understood and the rest can."""


_TALKERS: Final = tuple(
    logging.getLogger(name)
    for name in (
        "pydicom",
        "pydicom.pixels.utils",
        "pydicom.pixels.decoders.base",
        "pylibjpeg",
        "pylibjpeg.utils",
        "openjpeg.utils",
    )
)
"""Each on its own: a logger that is disabled still passes on what those below it say."""


class _Silence:
    """How many ask for silence; the loggers speak again, as they did before, when the last has left."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked = 0
        self._before: tuple[bool, ...] = ()

    def enter(self) -> None:
        with self._lock:
            if self._asked == 0:
                self._before = tuple(logger.disabled for logger in _TALKERS)
                for logger in _TALKERS:
                    logger.disabled = True
            self._asked += 1

    def leave(self) -> None:
        with self._lock:
            self._asked -= 1
            if self._asked == 0:
                for logger, disabled in zip(_TALKERS, self._before, strict=True):
                    logger.disabled = disabled


_silence: Final = _Silence()


@contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings and log lines of pydicom and its decoders, which could show a person's name."""
    _silence.enter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        _silence.leave()
