"""Pictures that are embedded in pages: key slices, thumbnails, the registered crop beside the template."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from aiene.geometry.grid import Block, Grid, RigidTransform, Volume, bounding_box
from aiene.geometry.resample import resample
from aiene.results.pictures import PANEL, View, as_shown, grey, key_index, panel, picture

VIEWS: Final[tuple[View, ...]] = ("axial", "coronal", "sagittal")
AIR_HU: Final = -1024.0
_KEY_WIDTH: Final = 1080  # three panels of a node, in pixels: sharp in print on a third of a page
_THUMBNAIL: Final = 160
_SIDE_MM: Final = 90.0
_AROUND_MM: Final = 30.0
_QUALITY: Final = 85


def key_picture(ct: Volume, labels: Volume, value: int) -> bytes:
    """A node in three planes through the middle of its largest axial slice, as JPEG.

    Parameters
    ----------
    ct, labels : on one grid, of any order of axes; the node has at least one voxel.
    """
    shown, marked = as_shown(ct), as_shown(labels)
    node = marked.array == value
    through, side = key_index(node), _side_mm(node, shown.grid)
    panels = [_square(shown, marked.array, value, view, through, side) for view in VIEWS]
    row = Image.new("RGB", (PANEL * len(panels), PANEL))
    for place, one in enumerate(panels):
        row.paste(one, (place * PANEL, 0))
    height = round(_KEY_WIDTH * PANEL / row.width)
    return jpeg(row.resize((_KEY_WIDTH, height), Image.Resampling.LANCZOS))


def thumbnail(ct: Volume, labels: Volume, value: int | None) -> bytes:
    """A small axial slice through a node, or a coronal one through the middle without one, as JPEG."""
    shown, marked = as_shown(ct), as_shown(labels)
    if value is not None:
        node = marked.array == value
        one = _square(
            shown, marked.array, value, "axial", key_index(node), max(_SIDE_MM, _side_mm(node, shown.grid))
        )
    else:
        z, y, x = (size // 2 for size in shown.grid.size)
        one = _square(shown, marked.array, -1, "coronal", (z, y, x), max(shown.grid.extent_mm))
    return jpeg(one.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.LANCZOS), quality=70)


def registration_picture(ct: Volume, crop: Grid, to_native: RigidTransform, template: Volume | None) -> bytes:
    """The crop of a CT as the networks see it, above the same crop of the template, in three planes, as JPEG.

    Parameters
    ----------
    ct : HU on the native grid.
    crop : the crop's place in the template's space.
    to_native : takes points of the template's space to the native CT's.
    template : HU in its own space; None where the bundle is gone, and the CT stands alone.
    """
    own = resample(
        Volume(ct.array.astype(np.float32), ct.grid), crop, order=1, outside=AIR_HU, world=to_native
    )
    rows = [("this CT, registered", own)]
    if template is not None:
        like = Volume(template.array.astype(np.float32), template.grid)
        rows.append(("template", resample(like, crop, order=1, outside=AIR_HU)))
    strips = [_strip(name, as_shown(volume)) for name, volume in rows]
    page = Image.new("RGB", (strips[0].width, sum(s.height for s in strips)))
    for place, strip in enumerate(strips):
        page.paste(strip, (0, place * strips[0].height))
    return jpeg(page)


def jpeg(image: Image.Image, quality: int = _QUALITY) -> bytes:
    """The bytes of a JPEG without subsampled colours: thin coloured outlines stay sharp."""
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality, subsampling=0, optimize=True)
    return stream.getvalue()


def _square(
    ct: Volume,
    labels: npt.NDArray[Any],
    value: int,
    view: View,
    through: tuple[int, int, int],
    side_mm: float,
) -> Image.Image:
    z, y, x = through
    drawn = picture(ct, labels, value, view, through=through, centre=(z, y, x), side_mm=side_mm, pixels=PANEL)
    return panel(drawn, view)


def _side_mm(node: npt.NDArray[np.bool_], grid: Grid) -> float:
    span: Block | None = bounding_box(np.ascontiguousarray(node))
    sizes: Sequence[float] = (
        [] if span is None else [(s.stop - s.start) * mm for s, mm in zip(span, grid.spacing, strict=True)]
    )
    return max(_SIDE_MM, max(sizes, default=0.0) + _AROUND_MM)


def _strip(name: str, volume: Volume) -> Image.Image:
    """The middle planes of a crop side by side, in square pixels of 1 mm, doubled."""
    z, y, x = (size // 2 for size in volume.grid.size)
    planes = (volume.array[z], volume.array[::-1, y], volume.array[::-1, :, x])
    dz, dy, dx = volume.grid.spacing
    sizes = ((dy, dx), (dz, dx), (dz, dy))
    tall = round(max(plane.shape[0] * mm[0] for plane, mm in zip(planes, sizes, strict=True)) * 1.6)
    parts = [
        Image.fromarray(grey(plane)).resize(
            (round(plane.shape[1] * mm[1] * 1.6), round(plane.shape[0] * mm[0] * 1.6)),
            Image.Resampling.BICUBIC,
        )
        for plane, mm in zip(planes, sizes, strict=True)
    ]
    strip = Image.new("RGB", (sum(part.width for part in parts) + 8 * (len(parts) - 1), tall + 8))
    left = 0
    for part in parts:
        strip.paste(part, (left, (tall - part.height) // 2))
        left += part.width + 8
    ImageDraw.Draw(strip).text(
        (6, 4), name, fill=(255, 210, 0), stroke_width=2, stroke_fill=(0, 0, 0), font_size=15
    )
    return strip
