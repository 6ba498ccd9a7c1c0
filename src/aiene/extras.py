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
    MissingExtraError : it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise MissingExtraError(purpose, module, extra) from error
