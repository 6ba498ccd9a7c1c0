"""What a page embeds: scripts and their policy, data that no one can take for markup, pictures."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from base64 import b64encode
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from aiene.geometry.grid import Block, Grid, RigidTransform, Volume, bounding_box
from aiene.geometry.resample import resample
from aiene.report.document import RESEARCH_ONLY
from aiene.report.write import filled
from aiene.results.nifti import nifti_bytes
from aiene.results.pictures import PANEL, View, as_shown, grey, key_index, panel, picture

NIIVUE: Final = "niivue.min.js"
LICENCES: Final = "niivue.LICENSES.txt"

MOST_BYTES: Final = 9_500_000
"""Of a packed CT: with base64's third, the viewer's 0.9 MB and the pictures, a page stays under 15 MB."""

_AIR_HU: Final = -300
_AIR_STEP_HU: Final = 25
_STEPS_HU: Final = (1, 2, 4, 8)
_EVERY: Final = 6  # slices between two whose packed size is tried


def asset(name: str) -> str:
    """A script, style sheet or text that is shipped with the package."""
    return resources.files("aiene.viewer").joinpath("assets", name).read_text(encoding="utf-8")


def policy(scripts: list[str], style: str, *, connect: str = "'none'") -> str:
    """A Content-Security-Policy under which these scripts and this style work and nothing else does.

    Parameters
    ----------
    scripts, style : exactly as they stand between their tags.
    connect : where the page may ask; nowhere, or `'self'` for a page of the review's server.
    """
    allowed = " ".join(_source(script) for script in scripts) or "'none'"
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style)}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


def page(
    template: str,
    notice: str,
    scripts: Sequence[str],
    styles: Sequence[str] = (),
    *,
    connect: str = "'none'",
    **values: Any,
) -> str:
    """A template with its values, under a policy that lets nothing run but these scripts and styles.

    Parameters
    ----------
    notice : the model's, before our own.
    scripts, styles : names of assets; `pages.css` comes first.
    connect : see `policy`.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    used, style = [asset(name) for name in scripts], "".join(map(asset, ("pages.css", *styles)))
    allowed = policy(used, style, connect=connect)
    notice = f"{notice} {RESEARCH_ONLY}"
    return filled(template, policy=allowed, style=style, notice=notice, scripts=used, **values)


def _source(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def as_json(content: Any) -> str:
    """JSON that may stand in a script element: nothing in it can end that."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def packed(content: bytes) -> str:
    """Bytes for a page: gzipped and in base64; those that are gzipped already stay so."""
    whole = content if content[:2] == b"\x1f\x8b" else gzip.compress(content, 6, mtime=0)
    return b64encode(whole).decode()


def jpeg_source(jpeg: bytes) -> str:
    """A JPEG as the source of an image."""
    return f"data:image/jpeg;base64,{b64encode(jpeg).decode()}"


def packed_ct(ct: Volume) -> tuple[str, str]:
    """A CT for a page as gzipped NIfTI of int16 HU, no larger than `MOST_BYTES` before base64.

    Noise is what makes a CT large: where it must be smaller, HU are rounded to steps that no window shows,
    and in the end two by two voxels of a plane are shown as one.

    Returns
    -------
    The packed file, and the sentence that says what was changed in it; empty for nothing.

    Raises
    ------
    ValueError : no step makes it fit: the bound is too small for any CT.
    """
    for step in _STEPS_HU:
        rounded = _rounded(ct, step)
        if _estimated_bytes(rounded) <= MOST_BYTES:
            return packed(nifti_bytes(rounded)), "" if step == 1 else _said(step)
    coarse = _halved(ct)
    while _estimated_bytes(_rounded(coarse, _STEPS_HU[-1])) > MOST_BYTES:
        if min(coarse.array.shape[1:]) < 4:
            raise ValueError(f"{MOST_BYTES} bytes are too small for a CT")
        coarse = _halved(coarse)
    size = " x ".join(f"{mm:.2g}" for mm in coarse.grid.spacing[::-1])
    return packed(nifti_bytes(_rounded(coarse, _STEPS_HU[-1]))), (
        f"{_said(_STEPS_HU[-1])} Its voxels here are {size} mm, larger than the CT's own; outlines are not."
    )


def _said(step: int) -> str:
    return f"To keep this page small, the CT is shown in steps of {step} HU (of {_AIR_STEP_HU} HU in air)."


def _rounded(ct: Volume, step: int) -> Volume:
    """HU in steps; in air in coarse ones, unless nothing is to be changed."""
    if step == 1:
        return ct
    steps = np.where(ct.array < _AIR_HU, _AIR_STEP_HU, step)
    return ct.with_array((np.rint(ct.array / steps) * steps).astype(np.int16))


def _estimated_bytes(ct: Volume) -> int:
    sample = np.ascontiguousarray(ct.array[::_EVERY])
    return int(len(gzip.compress(sample.tobytes(), 6)) * ct.array.shape[0] / sample.shape[0])


def _halved(ct: Volume) -> Volume:
    """Means of two by two voxels of each plane; an odd row or column at the end is left out."""
    z, y, x = (size - size % 2 * (axis > 0) for axis, size in enumerate(ct.array.shape))
    parts = ct.array[:, :y, :x].astype(np.float32).reshape(z, y // 2, 2, x // 2, 2)
    array = np.rint(parts.mean(axis=(2, 4))).astype(np.int16)
    affine = ct.grid.affine.copy()
    affine[:3, 3] += (affine[:3, 1] + affine[:3, 2]) / 2
    affine[:3, 1:3] *= 2
    return Volume(array, type(ct.grid).from_affine(affine, array.shape))


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
