"""Optional parts of the installation, asked for in one sentence."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from aiene.errors import MissingExtraError


def need(module: str, *, extra: str, purpose: str) -> ModuleType:
    """A module of an optional extra.

    Parameters
    ----------
    module : name to import.
    extra : the extra of this package that brings it.
    purpose : what needs it, as the subject of a sentence: "Stratifying".

    Raises
    ------
    MissingExtraError : it is not installed, or is there but does not load: binaries of two builds side by
        side (torchvision of another torch) raise RuntimeError or OSError on import.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.split(".")[0] == module.split(".")[0]:
            raise MissingExtraError(purpose, module, extra) from error
        raise MissingExtraError(purpose, module, extra, _first_line(error)) from error
    except (ImportError, OSError, RuntimeError) as error:
        raise MissingExtraError(purpose, module, extra, _first_line(error)) from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
