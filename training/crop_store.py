"""Many crops in two flat files, so that several processes read them without each holding them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from phantom_crops import CROP_GRID, Crop, load_crop


class CropStore(Sequence[Crop]):
    """Crops on disk: image and labels of each; the nodes' numbers and signs stay behind.

    Parameters
    ----------
    folder : what `write_store` wrote.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._images: npt.NDArray[np.float16] = np.load(folder / "images.npy", mmap_mode="r")
        self._labels: npt.NDArray[np.uint8] = np.load(folder / "labels.npy", mmap_mode="r")

    def __reduce__(self) -> tuple[type[CropStore], tuple[Path]]:
        return CropStore, (self.folder,)

    def __len__(self) -> int:
        return len(self._images)

    @overload
    def __getitem__(self, index: int) -> Crop: ...
    @overload
    def __getitem__(self, index: slice) -> list[Crop]: ...
    def __getitem__(self, index: int | slice) -> Crop | list[Crop]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(len(self)))]
        labels = self._labels[index]
        return Crop(self._images[index], labels, np.zeros_like(labels), np.zeros(0, np.float32))


def write_store(files: list[Path], folder: Path) -> CropStore:
    """Put crops into a store in the order given; one that holds as many already is kept."""
    folder.mkdir(parents=True, exist_ok=True)
    names = "\n".join(file.name for file in files)
    if (folder / "names.txt").exists() and (folder / "names.txt").read_text(encoding="utf-8") == names:
        return CropStore(folder)
    shape = (len(files), *CROP_GRID.size)
    images = np.lib.format.open_memmap(folder / "images.npy", mode="w+", dtype=np.float16, shape=shape)
    labels = np.lib.format.open_memmap(folder / "labels.npy", mode="w+", dtype=np.uint8, shape=shape)
    for k, file in enumerate(files):
        crop = load_crop(file)
        images[k], labels[k] = crop.image, crop.labels
    images.flush()
    labels.flush()
    (folder / "names.txt").write_text(names, encoding="utf-8")
    return CropStore(folder)
