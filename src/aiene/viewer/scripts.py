"""What a page runs and holds: scripts, policy, and data packed so that no text can be taken for markup."""

from __future__ import annotations

import gzip
import hashlib
import json
from base64 import b64encode
from importlib import resources
from typing import Any, Final

import numpy as np

from aiene.geometry.grid import Volume
from aiene.results.nifti import nifti_bytes

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
    allowed = " ".join(_source(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src {_source(style)}; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )


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


def packed_json(content: Any) -> str:
    """JSON that is too large to be read by people, packed."""
    return packed(json.dumps(content, separators=(",", ":")).encode())


def picture(jpeg: bytes) -> str:
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
