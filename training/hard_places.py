"""Places of real CTs that a half-trained segmenter calls a node and that are none: it looks at them again."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage

from aiene.geometry import Volume
from aiene.segment import Segmenter, load_segmenter
from fit_segmenter import IGNORE, NODE
from phantom_crops import CROP_GRID, Crop

LEAST_VOXELS = 30

Place = tuple[int, int, int]


def false_places(crop: Crop, segmenter: Segmenter) -> list[Place]:
    """(z, y, x) of a voxel of each piece that is called a node and meets neither a node nor the unknown."""
    called = segmenter.predict(Volume(crop.image.astype(np.float32), CROP_GRID)).array == NODE
    pieces, count = ndimage.label(called)
    sizes = np.bincount(pieces.ravel(), minlength=count + 1)
    true = np.unique(pieces[(crop.labels == NODE) | (crop.labels == IGNORE)])
    false = [n for n in range(1, count + 1) if sizes[n] >= LEAST_VOXELS and n not in true]
    depth = ndimage.distance_transform_edt(called) if false else called
    places = ndimage.maximum_position(depth, pieces, false) if false else []
    return [(int(z), int(y), int(x)) for z, y, x in places]


def hard_places(
    crops: Sequence[Crop], numbers: Sequence[int], folder: Path, workers: int
) -> list[tuple[int, int, int, int]]:
    """(crop, z, y, x) of every false place of some crops.

    Parameters
    ----------
    numbers : which crops are searched.
    folder : of the segmenter.
    workers : processes of one thread.
    """
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        jobs = [pool.submit(_places_of, crops, numbers[k::workers], folder) for k in range(workers)]
        return sorted(place for job in jobs for place in job.result())


def _places_of(
    crops: Sequence[Crop], numbers: Sequence[int], folder: Path
) -> list[tuple[int, int, int, int]]:
    torch.set_num_threads(1)
    segmenter = load_segmenter(folder)
    return [(k, *place) for k in numbers for place in false_places(crops[k], segmenter)]
