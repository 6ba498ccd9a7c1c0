"""Where bundles live, and how one is found by name."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from aiene.errors import ModelError
from aiene.models.bundle import CARD, Bundle, read_bundle

DEFAULT = "default"


def models_folder() -> Path:
    """`$AIENE_MODELS`, or the user's data folder."""
    named = os.environ.get("AIENE_MODELS")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("aiene", appauthor=False) / "models"


def default_folder() -> Path:
    """The open default bundle, which comes with the package."""
    return Path(str(resources.files("aiene.models") / DEFAULT))


def find_bundle(name: str) -> Bundle:
    """The bundle of a name, or of a folder.

    Raises
    ------
    ModelError : no such bundle, or its card cannot be read.
    """
    folder = Path(name)
    if os.sep in name or folder.joinpath(CARD).is_file():
        return read_bundle(folder)
    if name == DEFAULT:
        return read_bundle(default_folder())
    if (models_folder() / name).is_dir():
        return read_bundle(models_folder() / name)
    known = ", ".join(sorted(b.card.name for b in all_bundles() if isinstance(b, Bundle)))
    raise ModelError(name, "no model bundle of this name", f"known are {known}; or name a bundle's folder")


def all_bundles() -> Iterator[Bundle | ModelError]:
    """The default bundle, then those of the models folder; one that cannot be read is its error."""
    folders = [default_folder()]
    if models_folder().is_dir():
        folders += sorted(f for f in models_folder().iterdir() if f.is_dir() and not f.name.startswith("."))
    for folder in folders:
        try:
            yield read_bundle(folder)
        except ModelError as error:
            yield error
