"""Reading PyTorch checkpoints of strangers: tensors and plain values come in, nothing is run."""

from __future__ import annotations

import pickle
import re
import warnings
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from aiene.errors import ModelError

REMEDY = "get the file again from whom you trust"

_SCALAR = np.float64(0).__reduce__()[0]
_RECONSTRUCT = np.zeros(1).__reduce__()[0]
_DTYPES = (np.float64, np.float32, np.float16, np.int64, np.int32, np.int16, np.uint8, np.int8, np.bool_)

NUMPY_GLOBALS: dict[str, Any] = {
    "numpy.dtype": np.dtype,
    "numpy.ndarray": np.ndarray,
    "numpy.core.multiarray.scalar": _SCALAR,
    "numpy.core.multiarray._reconstruct": _RECONSTRUCT,
    "numpy._core.multiarray.scalar": _SCALAR,
    "numpy._core.multiarray._reconstruct": _RECONSTRUCT,
}
"""What numpy arrays and scalars need when they are unpickled, under numpy 1's and numpy 2's names."""


def read_checkpoint(file: Path) -> dict[str, Any]:
    """A PyTorch checkpoint (zip or the older format), on the CPU, by the weights-only loader.

    Numpy scalars and arrays, which training histories hold, are allowed besides tensors and plain values.

    Raises
    ------
    ModelError : not readable, damaged, or it refers to anything else: nothing of that is run.
    """
    try:
        with file.open("rb") as stream:
            content = _load(stream)
    except OSError as error:
        raise ModelError(file, "cannot be read, or is damaged", REMEDY) from error
    except pickle.UnpicklingError as error:
        raise ModelError(file, _refusal(str(error)), REMEDY) from error
    except (RuntimeError, ValueError, LookupError, TypeError, AttributeError, EOFError, MemoryError) as error:
        raise ModelError(file, "is not a PyTorch checkpoint, or is damaged", REMEDY) from error
    if not isinstance(content, dict):
        raise ModelError(file, "holds no dictionary of weights", REMEDY)
    return content


def _load(stream: IO[bytes]) -> Any:
    allowed: list[Any] = [(value, name) for name, value in NUMPY_GLOBALS.items()]
    allowed += [type(np.dtype(kind)) for kind in _DTYPES]
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=UserWarning, module="torch")  # on its own old formats
        return torch.load(stream, map_location="cpu", weights_only=True)


def tensors_of(file: Path, content: Any) -> dict[str, torch.Tensor]:
    """Named tensors as float32, without the prefixes that parallel or compiled training leaves.

    Raises
    ------
    ModelError : something in it is no tensor, or holds values that are no numbers.
    """
    if not isinstance(content, dict) or not content:
        raise ModelError(file, "holds no weights", REMEDY)
    named: dict[str, torch.Tensor] = {}
    for name, value in content.items():
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise ModelError(file, f"its weight {name!r} is no tensor", REMEDY)
        if not torch.isfinite(value).all():
            raise ModelError(file, f"its weight {name} holds values that are not numbers", REMEDY)
        floating = value.float() if value.is_floating_point() else value
        named[re.sub(r"^(module\.|_orig_mod\.)+", "", name)] = floating
    return named


def _refusal(message: str) -> str:
    found = re.search(r"(?:GLOBAL|global:?|function) [`'\"]?([\w.]+\.[\w.]+)", message)
    if found:
        return f"refers to {found.group(1)}, which is no weight, and was not opened"
    return "is not a PyTorch checkpoint, or holds more than weights, and was not opened"
