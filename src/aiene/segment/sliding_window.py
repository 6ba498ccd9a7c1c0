"""The sliding window: where tiles lie, how they are weighted, and their sum."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from aiene.segment.plans import Shape

_SIGMA = 1 / 8
"""Standard deviation of the Gaussian weight, as a share of the patch."""


def tile_starts(size: int, patch: int, step_size: float) -> list[int]:
    """First voxels of the tiles along one axis: at most `step_size` patches apart, evenly spread."""
    count = math.ceil((size - patch) / (patch * step_size)) + 1
    if count < 2:
        return [0]
    return [round((size - patch) / (count - 1) * i) for i in range(count)]


@lru_cache(maxsize=2)
def gaussian(patch: Shape) -> torch.Tensor:
    """Weight of each voxel of a tile, float32, 1 in the middle, nowhere 0. Source: nnU-Net."""
    peak = np.zeros(patch)
    peak[tuple(n // 2 for n in patch)] = 1
    weight = ndimage.gaussian_filter(peak, [n * _SIGMA for n in patch], order=0, mode="constant", cval=0)
    small: npt.NDArray[np.float32] = (weight / weight.max()).astype(np.float32)
    small[small == 0] = small[small != 0].min()
    return torch.from_numpy(small)


def padding(shape: Sequence[int], patch: Shape) -> list[tuple[int, int]]:
    """Voxels to put before and behind each axis so that it holds a patch; the odd one comes behind."""
    missing = [max(p - n, 0) for n, p in zip(shape, patch, strict=True)]
    return [(d // 2, d - d // 2) for d in missing]


def slide(
    image: torch.Tensor,
    patch: Shape,
    step_size: float,
    classes: int,
    predict: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """Weighted mean of a network's answers over all tiles.

    Parameters
    ----------
    image : float32, three axes, of any size; padded with 0 where it is smaller than the patch.
    patch : voxels of a tile.
    step_size : largest distance of two tiles, as a share of the patch.
    classes : channels of the answer.
    predict : takes (1, 1, *patch) to (classes, *patch), which it gives away; on any device.

    Returns
    -------
    float32 (classes, *image.shape) on the CPU. One tile is taken as it is, without weights.
    """
    margins = padding(image.shape, patch)
    padded = torch.nn.functional.pad(image, [n for pair in reversed(margins) for n in pair])
    tiles = list(_tiles(padded.shape, patch, step_size))
    keep = tuple(slice(low, low + n) for (low, _), n in zip(margins, image.shape, strict=True))
    if len(tiles) == 1:
        return predict(padded[None, None])[(slice(None), *keep)].cpu()
    weight = gaussian(patch)
    total = torch.zeros((classes, *padded.shape))
    weights = torch.zeros(padded.shape)
    for tile in tiles:
        total[(slice(None), *tile)] += predict(padded[(None, None, *tile)]).cpu().mul_(weight)
        weights[tile] += weight
    return total.div_(weights)[(slice(None), *keep)]


def _tiles(shape: Sequence[int], patch: Shape, step_size: float) -> Iterator[tuple[slice, ...]]:
    axes = [tile_starts(n, p, step_size) for n, p in zip(shape, patch, strict=True)]
    for start in itertools.product(*axes):
        yield tuple(slice(s, s + p) for s, p in zip(start, patch, strict=True))
