"""Pictures of a CT and its nodes: a plane in the patient's axes, with outlines, letters and a scale bar."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from aiene.geometry.grid import Grid, Volume
from aiene.geometry.outlines import outlines

View = Literal["axial", "coronal", "sagittal"]
AIR_HU: Final = -1024.0
_AXES: Final = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]], dtype=float)  # LPS of z, y, x as they are shown
_LETTERS: Final = ("RL", "AP", "IS")  # for x, y, z: towards smaller, and towards larger LPS
_SHOWN_COSINE: Final = 0.2
"""A direction's part along an axis of the body below this has no letter: about 11.5 degrees."""

_PLANES: Final[dict[View, tuple[int, tuple[int, int]]]] = {
    "axial": (0, (1, 2)),
    "coronal": (1, (0, 2)),
    "sagittal": (2, (0, 1)),
}
"""The axis across each plane, and the axes down and to the right; z runs upwards on the page."""

LEVEL_HU: Final = 50.0
WIDTH_HU: Final = 350.0
"""Soft tissue of the neck."""

PANEL: Final = 480
NODE_COLOUR: Final = (255, 210, 0)
_OTHER_COLOUR: Final = (0, 190, 255)
_FINE: Final = 3  # outlines are drawn this much larger, so that they are smooth


@dataclass(frozen=True, eq=False)
class Picture:
    """A square of a plane, sampled for the page.

    Parameters
    ----------
    hu : float32 (row, column), square pixels; air outside the CT.
    mask : the node there, bool.
    others : the other nodes, bool.
    mm_per_pixel : side of a pixel.
    letters : where the page's left, right, top and bottom point in the patient.
    """

    view: View
    hu: npt.NDArray[np.float32]
    mask: npt.NDArray[np.bool_]
    others: npt.NDArray[np.bool_]
    mm_per_pixel: float
    letters: tuple[str, str, str, str]


def as_shown(volume: Volume) -> Volume:
    """The same voxels, axes permuted and flipped so that z rises to the head, y to the back, x to the left.

    An oblique volume keeps its own axes; each goes to the axis of the body that is nearest.
    """
    axes, signs = _nearest_axes(volume.grid)
    array = np.transpose(volume.array, axes)
    affine = volume.grid.affine[:, [*axes, 3]].copy()
    for axis, sign in enumerate(signs):
        if sign < 0:
            array = np.flip(array, axis)
            affine[:3, 3] += affine[:3, axis] * (array.shape[axis] - 1)
            affine[:3, axis] *= -1
    return Volume(array, Grid.from_affine(affine, array.shape))


def key_index(node: npt.NDArray[np.bool_]) -> tuple[int, int, int]:
    """The voxel to look at: on the axial slice of largest area (the first such), the node's middle there.

    Parameters
    ----------
    node : bool (z, y, x) as shown, not empty. The voxel is one of the node's own, also where it has a hole.
    """
    z = int(node.sum(axis=(1, 2)).argmax())
    points = np.argwhere(node[z])
    middle = points.mean(axis=0)
    y, x = points[((points - middle) ** 2).sum(axis=1).argmin()]
    return z, int(y), int(x)


def picture(
    ct: Volume,
    nodes: npt.NDArray[Any],
    value: int,
    view: View,
    *,
    through: tuple[int, int, int],
    centre: tuple[float, float, float],
    side_mm: float,
    pixels: int,
) -> Picture:
    """A square of a plane of the CT, with the nodes on it.

    Parameters
    ----------
    ct, nodes : as shown, on one grid; nodes have their numbers.
    value : the node in question.
    through : the voxel that the plane holds.
    centre : index (z, y, x) of the square's middle.
    side_mm, pixels : its side on the patient and on the page.
    """
    across, (down, right) = _PLANES[view]
    at = [slice(None)] * 3
    at[across] = slice(through[across], through[across] + 1)
    hu, labels = (np.squeeze(array[tuple(at)], axis=across) for array in (ct.array, nodes))
    steps = (np.arange(pixels) + 0.5 - pixels / 2) * side_mm / pixels
    upwards = -1 if down == 0 else 1
    rows = centre[down] + upwards * steps / ct.grid.spacing[down]
    columns = centre[right] + steps / ct.grid.spacing[right]
    where = np.meshgrid(rows, columns, indexing="ij")
    sampled = ndimage.map_coordinates(hu.astype(np.float32), where, order=1, cval=AIR_HU)
    drawn = ndimage.map_coordinates(labels.astype(np.int32), where, order=0, cval=0)
    to_right, to_bottom = np.array(ct.grid.direction[right]), upwards * np.array(ct.grid.direction[down])
    return Picture(
        view=view,
        hu=sampled,
        mask=drawn == value,
        others=(drawn != 0) & (drawn != value),
        mm_per_pixel=side_mm / pixels,
        letters=(letters(-to_right), letters(to_right), letters(-to_bottom), letters(to_bottom)),
    )


def letters(direction: npt.NDArray[np.float64]) -> str:
    """Where a direction (LPS) points: R L A P I S, the strongest part first, `LP` for an oblique one.

    As PS3.3 C.7.6.1.1.1 writes Patient Orientation, with H and F as S and I, which viewers show.
    """
    order = np.argsort(-np.abs(direction), kind="stable")
    shown = [int(axis) for axis in order if abs(direction[axis]) >= _SHOWN_COSINE]
    return "".join(_LETTERS[axis][int(direction[axis] > 0)] for axis in shown)


def _nearest_axes(grid: Grid) -> tuple[list[int], list[float]]:
    """For each shown axis (z, y, x): the grid's axis that is nearest to it, and whether along or against."""
    from itertools import permutations

    cosines = _AXES @ np.array(grid.direction).T  # (shown axis, grid axis)
    best = max(permutations(range(3)), key=lambda p: float(np.abs(cosines[range(3), p]).sum()))
    return list(best), [float(np.sign(cosines[k, axis])) for k, axis in enumerate(best)]


def grey(hu: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """HU in the window of soft tissue, 0 to 255."""
    scaled = (hu - (LEVEL_HU - WIDTH_HU / 2)) / WIDTH_HU
    return np.rint(np.clip(scaled, 0, 1) * 255).astype(np.uint8)


def scale_bar_mm(side_mm: float) -> int:
    """A round length that takes up to a third of the side."""
    return max(mm for mm in (1, 2, 5, 10, 20, 50, 100) if mm <= max(side_mm / 3, 1))


def panel(picture: Picture, caption: str) -> Image.Image:
    """A picture of `PANEL` pixels with its outlines, caption, letters and scale bar."""
    image = (
        Image.fromarray(grey(picture.hu))
        .convert("RGB")
        .resize((PANEL * _FINE,) * 2, Image.Resampling.BICUBIC)
    )
    pen = ImageDraw.Draw(image)
    _outline(pen, picture.others, _OTHER_COLOUR, 1)
    _outline(pen, picture.mask, NODE_COLOUR, 2)
    image = image.resize((PANEL, PANEL), Image.Resampling.LANCZOS)
    pen = ImageDraw.Draw(image)
    _letters(pen, picture.letters)
    _scale_bar(pen, picture.mm_per_pixel)
    _text(pen, (8, 6), caption, 15, "la")
    return image


def _outline(
    pen: ImageDraw.ImageDraw, mask: npt.NDArray[np.bool_], colour: tuple[int, int, int], width: int
) -> None:
    for outline in outlines(mask):
        points = [((c + 0.5) * _FINE, (r + 0.5) * _FINE) for r, c in [*outline.tolist(), outline[0].tolist()]]
        pen.line(points, fill=colour, width=width * _FINE, joint="curve")


def _letters(pen: ImageDraw.ImageDraw, letters: tuple[str, str, str, str]) -> None:
    left, right, top, bottom = letters
    middle, edge = PANEL / 2, PANEL - 8
    for place, text, anchor in (
        ((8, middle), left, "lm"),
        ((edge, middle), right, "rm"),
        ((middle, 28), top, "ma"),
        ((middle, edge), bottom, "md"),
    ):
        _text(pen, place, text, 20, anchor)


def _scale_bar(pen: ImageDraw.ImageDraw, mm_per_pixel: float) -> None:
    length_mm = scale_bar_mm(PANEL * mm_per_pixel)
    length, y = length_mm / mm_per_pixel, PANEL - 14
    end = PANEL - 14
    for dark, width in (((0, 0, 0), 5), ((255, 255, 255), 2)):
        pen.line([(end - length, y), (end, y)], fill=dark, width=width)
        for x in (end - length, end):
            pen.line([(x, y - 6), (x, y + 6)], fill=dark, width=width)
    _text(pen, (end - length / 2, y - 8), f"{length_mm} mm", 14, "md")


def _text(pen: ImageDraw.ImageDraw, place: tuple[float, float], text: str, size: int, anchor: str) -> None:
    pen.text(
        place,
        text,
        font=font(size),
        fill=(255, 255, 255),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def font(size: int) -> Any:
    """Pillow's own letters, the same on every machine."""
    return ImageFont.load_default(size=size)
