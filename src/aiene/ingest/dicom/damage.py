"""How pydicom fails on broken files, and how it is kept from talking about odd ones."""

from __future__ import annotations

import struct
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


@contextmanager
def quiet() -> Iterator[None]:
    """Without pydicom's warnings, which could show a person's name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
