"""Reading the pickles of strangers (nnU-Net v1's plans) without running what they ask for."""

from __future__ import annotations

import collections
import pickle
from pathlib import Path
from typing import IO, Any

import numpy as np

from aiene.errors import ModelError
from aiene.segment.checkpoint import NUMPY_GLOBALS, REMEDY

_ALLOWED: dict[str, Any] = {"collections.OrderedDict": collections.OrderedDict, **NUMPY_GLOBALS}
_LARGEST_BYTES = 512 * 1024**2


class _Forbidden(pickle.UnpicklingError):
    """The pickle names something that is not on the list."""


class _Restricted(pickle.Unpickler):
    """Knows ordered dictionaries and numpy arrays and scalars; looks nothing else up."""

    def find_class(self, module: str, name: str) -> Any:
        """The object of that name, if it is on the list; the module is never imported."""
        full = f"{module}.{name}"
        if full not in _ALLOWED:
            raise _Forbidden(full)
        return _ALLOWED[full]


def read_pickle(file: Path) -> Any:
    """The content of a pickle that holds plain values, ordered dictionaries and numpy arrays or scalars.

    Raises
    ------
    ModelError : not readable, damaged, or it names anything else: nothing of that is looked up or run.
    """
    try:
        if file.stat().st_size > _LARGEST_BYTES:
            raise ModelError(file, "is too large for a file of plans", REMEDY)
        with file.open("rb") as stream:
            return _load(stream)
    except OSError as error:
        raise ModelError(file, "cannot be read", "name a complete nnU-Net model folder") from error
    except _Forbidden as error:
        problem = f"asks for {error}, which no plan needs, and was not opened"
        raise ModelError(file, problem, REMEDY) from error
    except _DAMAGED as error:
        raise ModelError(file, "is not a pickle, or is damaged", REMEDY) from error


_DAMAGED = (
    pickle.UnpicklingError,
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)


def _load(stream: IO[bytes]) -> Any:
    return _Restricted(stream).load()


def plain(value: Any) -> Any:
    """The same content as JSON types: arrays and tuples as lists, numpy scalars as numbers, keys as text."""
    if isinstance(value, dict):
        return {str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return value.item()
    return value
