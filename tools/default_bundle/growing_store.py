"""Crops in a folder that grows while a training reads it: flat files, each there as a whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, overload

import numpy as np

from tools.default_bundle.phantom_crops import Crop


class Crops(Sequence[Crop]):
    """Crops that are made when they are asked for, by `at`."""

    def at(self, index: int) -> Crop:
        """The crop of that number."""
        raise NotImplementedError

    @overload
    def __getitem__(self, index: int) -> Crop: ...
    @overload
    def __getitem__(self, index: slice) -> list[Crop]: ...
    def __getitem__(self, index: int | slice) -> Crop | list[Crop]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        return self.at(index)


class GrowingStore(Crops):
    """Crops on disk; `refresh` takes in what has come since.

    Parameters
    ----------
    folder : what `add_crop` writes into.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.names: list[str] = []
        self._known: dict[str, tuple[int, ...]] = {}
        self.refresh()

    def __reduce__(self) -> tuple[type[GrowingStore], tuple[Path]]:
        return GrowingStore, (self.folder,)

    def refresh(self) -> int:
        """Take in new crops; returns how many there are. What was there keeps its number."""
        held = set(self.names)
        self.names += sorted(f.stem for f in self.folder.glob("*.json") if f.stem not in held)
        return len(self.names)

    def facts(self, index: int) -> dict[str, Any]:
        """What was written beside the crop."""
        facts: dict[str, Any] = json.loads(
            (self.folder / f"{self.names[index]}.json").read_text(encoding="utf-8")
        )
        return facts

    def whole(self, index: int) -> Crop:
        """The crop with its nodes' numbers and signs."""
        crop = self[index]
        with np.load(self.folder / f"{self.names[index]}.nodes.npz") as stored:
            return replace(crop, numbers=stored["numbers"], ene=stored["ene"])

    def __len__(self) -> int:
        return len(self.names)

    def at(self, index: int) -> Crop:
        """Its image and labels stay on disk until they are looked at."""
        name = self.names[index]
        if name not in self._known:
            self._known[name] = tuple(self.facts(index)["organs"])
        labels = np.load(self.folder / f"{name}.labels.npy", mmap_mode="r")
        image = np.load(self.folder / f"{name}.image.npy", mmap_mode="r")
        return Crop(image, labels, np.empty(0, np.uint8), np.empty(0, np.float32), self._known[name])


def add_crop(folder: Path, name: str, crop: Crop, facts: dict[str, Any]) -> None:
    """Write a crop; the file that makes it count comes last.

    Parameters
    ----------
    facts : anything that JSON holds; what evaluations sort by.
    """
    folder.mkdir(parents=True, exist_ok=True)
    np.save(folder / f"{name}.image.npy", crop.image)
    np.save(folder / f"{name}.labels.npy", crop.labels)
    np.savez_compressed(folder / f"{name}.nodes.npz", numbers=crop.numbers, ene=crop.ene)
    partial = folder / f"{name}.part"
    partial.write_text(json.dumps({"organs": list(crop.organs), **facts}), encoding="utf-8")
    partial.rename(folder / f"{name}.json")


def has_crop(folder: Path, name: str) -> bool:
    """Whether a crop of that name was written as a whole."""
    return (folder / f"{name}.json").exists()
