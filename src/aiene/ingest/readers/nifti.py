"""NIfTI to a CT, by rules in writing where the header contradicts itself.

The affine
    The sform counts where its code is over 0, else the qform. (SimpleITK 2.5.7 prefers the qform to an sform
    of a code other than 1, in silence; nibabel takes the sform.) Where both are there and differ, or where
    the sform's spacing is not pixdim's, the case is warned; where they differ in handedness, or anywhere by
    more than one voxel, it is refused. An sform with a shear is compared by its nearest rigid lattice, since
    a qform cannot hold a shear; the volume is then resampled onto that lattice. Where the case asks for one
    of them (`Case.affine`), that one counts, and what differs is a warning. Where both codes are 0, the
    axes are taken for LPS as stock readers do, with a warning that nobody knows which side is left.
The scale
    A slope of 0, NaN or infinite scales nothing, an intercept that is no number is 0, as the standard's own
    library reads them. Lengths are in the unit of xyzt_units; where it names none, in mm.
The axes
    The file's own index order (i, j, k) becomes array axes (k, j, i); nothing is reoriented.
"""

from __future__ import annotations

import gzip
import math
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from aiene.errors import InputError, Said, ours, said
from aiene.geometry.grid import corner_indices
from aiene.ingest.case import AffineRule, Case, NativeCt
from aiene.ingest.checks import InRange, check_memory, check_promise, check_size, check_spacing, in_ct_range
from aiene.ingest.file_head import Head
from aiene.ingest.formats import Format
from aiene.ingest.lattice import PIXEL_TYPES, Matrix, Squared, as_json, narrow, nearest_square, on_rectangle

_LPS_FROM_RAS: Final = np.diag([-1.0, -1.0, 1.0, 1.0])
"""NIfTI's world is RAS, ours LPS; this is the only place where the two meet."""

_UNIT_MM: Final = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}  # xyzt_units & 7: unknown, metre, mm, micrometre
_MILLIMETRE: Final = 2
_UNIT_NAMES: Final = {1: "metre", 3: "micrometre"}
_FLOAT32, _FLOAT64 = 8, 9
_Scaling = tuple[float, float, tuple[Said, ...]]
"""Slope, intercept, and what to tell of them."""

_TOLD_VOXELS: Final = 0.01
_TOLD_MM: Final = 0.01
_TOLD_DEGREES: Final = 1e-3
_AGAIN: Final = "correct the header, or convert the CT again"
_OR_ASK: Final = ", or choose the right one with --affine sform or --affine qform"
_COPY: Final = "the file is cut off or damaged: copy it again"


@dataclass(frozen=True)
class _Affine:
    """Which affine counts: 4 x 4 from (i, j, k) to RAS mm, its name, and what to warn of."""

    matrix: Matrix
    rule: str
    known: bool
    warnings: tuple[Said, ...] = ()


def read_nifti(case: Case) -> NativeCt:
    """The CT of a NIfTI case, .nii, .nii.gz or the pair .hdr and .img.

    Raises
    ------
    InputError : the file is cut off, holds no single 3-D volume of plain numbers, or its geometry is absurd
        or contradicts itself.
    """
    path = case.files[0]
    try:
        header = _read_header(path)
        size = _size(path, header)
        affine = _affine(path, header, case.affine)
        scaling = _scaling(header)
        stored = _read_voxels(path, header, size)
    except (OSError, EOFError, zlib.error, HeaderDataError, WrapStructError, ValueError, KeyError) as error:
        raise InputError(path, "it cannot be read as NIfTI", _COPY) from error
    return _native(path, stored, affine, scaling)


def ct_of_image(where: Path, image: nib.Nifti1Pair) -> NativeCt:
    """The CT of a nibabel image, by the same rules as that of the file that it would be saved to.

    Parameters
    ----------
    where : named in errors.
    image : NIfTI-1 or NIfTI-2, of a file or made in memory.

    Raises
    ------
    InputError : as `read_nifti`.
    """
    try:
        header = type(image)(image.dataobj, image.affine, image.header).header  # it now says its affine
        size = _size(where, header)
        affine = _affine(where, header, "auto")
        data, scaling = image.dataobj, (1.0, 0.0, ())
        if isinstance(data, ArrayProxy):
            data, scaling = data.get_unscaled(), (float(data.slope), float(data.inter), ())
        stored = np.asarray(data)
    except (OSError, EOFError, zlib.error, HeaderDataError, ValueError, KeyError) as error:
        raise InputError(where, "it cannot be read as NIfTI", _COPY) from error
    _check_type(where, stored.dtype)
    ordered = np.ascontiguousarray(stored.reshape(size[::-1], order="F").transpose(2, 1, 0))
    return _native(where, ordered.astype(stored.dtype.newbyteorder("="), copy=False), affine, scaling)


def _native(path: Path, stored: npt.NDArray[Any], affine: _Affine, scaling: _Scaling) -> NativeCt:
    """The CT of stored values (k, j, i)."""
    slope, intercept, told = scaling
    size: tuple[int, int, int] = stored.shape
    lattice = (_LPS_FROM_RAS @ affine.matrix)[:, [2, 1, 0, 3]]  # array axes are (k, j, i)
    square = nearest_square(lattice, size)
    values = narrow(stored, slope, intercept)
    inside = InRange(values) if square.snaps else in_ct_range(path, values)  # before it is interpolated
    return NativeCt(
        volume=on_rectangle(inside.array, lattice, square),
        pixel_type=_pixel_type(stored.dtype, scaled=(slope, intercept) != (1.0, 0.0)),
        source={
            "kind": "nifti",
            "affine_rule": affine.rule,
            "orientation_known": affine.known,
            "off_right_angles_degrees": round(square.angle_degrees, 4),
            "lattice": as_json(lattice, size),
            **inside.record,
        },
        warnings=(*told, *affine.warnings, *shear_warnings(square), *inside.warnings),
    )


def shear_warnings(square: Squared) -> tuple[Said, ...]:
    """What to tell of axes that are not at right angles."""
    if square.angle_degrees < _TOLD_DEGREES:
        return ()
    angle = said("the axes are {:.3g} degrees off right angles", square.angle_degrees)
    if square.snaps:
        return (said("{}: they were straightened, which moves no voxel by more than half a voxel", angle),)
    return (said("{}: the CT was resampled onto the nearest rectangular grid", angle),)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(2) == b"\x1f\x8b"
    return gzip.open(path) if zipped else path.open("rb")  # type: ignore[return-value]


def _read_header(path: Path) -> Any:
    with _open(path) as file:
        first = file.read(4)
        two = 540 in (int.from_bytes(first, "little"), int.from_bytes(first, "big"))
        file.seek(0)
        return (nib.Nifti2Header if two else nib.Nifti1Header).from_fileobj(file, check=False)


def _size(path: Path, header: Any) -> tuple[int, int, int]:
    """(k, j, i)."""
    shape = [int(n) for n in header["dim"][1 : 1 + max(0, min(7, int(header["dim"][0])))]]
    if not shape or min(shape) < 1:
        raise InputError(path, said("its dimensions {} are not those of a volume", shape), _AGAIN)
    volumes = int(np.prod(shape[3:], dtype=np.int64))
    if volumes > 1:
        raise InputError(path, said("it holds {} volumes instead of one", volumes), "give one CT per file")
    shape = [*shape[:3], 1, 1][:3]
    check_size(path, shape)
    return shape[2], shape[1], shape[0]


def _scaling(header: Any) -> _Scaling:
    """What the stored numbers are multiplied with, and what is added.

    By the standard a slope of 0 says that nothing is scaled; its library reads what is no finite number as 0.
    """
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or not math.isfinite(slope):
        return 1.0, 0.0, ()
    if math.isfinite(intercept):
        return slope, intercept, ()
    return slope, 0.0, (said("its scl_inter is {}, not a number: 0 was used", intercept),)


def _read_voxels(path: Path, header: Any, size: tuple[int, int, int]) -> npt.NDArray[Any]:
    """Stored values (k, j, i) in native byte order."""
    dtype = header.get_data_dtype()
    _check_type(path, dtype)
    data, offset = _voxel_file(path, header)
    count = size[0] * size[1] * size[2]
    with _open(data) as file:
        check_promise(data, count * dtype.itemsize, offset=offset, deflated=isinstance(file, gzip.GzipFile))
        check_memory(data, count)
        file.seek(offset)
        content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise InputError(data, "it ends before its last voxel", _COPY)
    values = np.frombuffer(content, dtype=dtype).reshape(size)
    return values.astype(dtype.newbyteorder("="), copy=False)


def _check_type(path: Path, dtype: np.dtype[Any]) -> None:
    if dtype.kind not in "iuf" or dtype.str[1:] not in PIXEL_TYPES:
        raise InputError(
            path, said("its voxels are {} instead of plain numbers", ours(str(dtype))), "give a greyscale CT"
        )


def _voxel_file(path: Path, header: Any) -> tuple[Path, int]:
    stated = float(header["vox_offset"])
    offset = int(stated) if math.isfinite(stated) else 0
    if bytes(header["magic"].tobytes()).startswith(b"n+"):
        return path, max(offset, int(header["sizeof_hdr"]) + 4)
    name = path.name[: -len(".hdr.gz")] if path.name.endswith(".hdr.gz") else path.stem
    for ending in (".img", ".img.gz"):
        pair = path.with_name(name + ending)
        if pair.exists():
            return pair, max(offset, 0)
    raise InputError(path, "its file with the voxels (.img) is missing", "put it next to the header")


def _pixel_type(dtype: np.dtype[Any], *, scaled: bool) -> int:
    """SimpleITK's number of the type that it would read: integers with a scale become float32."""
    stored = PIXEL_TYPES[dtype.str[1:]]
    return stored if not scaled or stored == _FLOAT64 else _FLOAT32


def _affine(path: Path, header: Any, asked: AffineRule) -> _Affine:
    code = int(header["xyzt_units"]) & 7
    unit = np.diag([*[_UNIT_MM.get(code, 1.0)] * 3, 1.0])
    unit_told = (
        None
        if code == _MILLIMETRE
        else said("its unit is {}", ours(_UNIT_NAMES.get(code, "not stated, taken as mm")))
    )
    pixdim = np.array([float(v) for v in header["pixdim"][1:4]])
    codes = int(header["sform_code"]), int(header["qform_code"])
    if asked != "auto" and codes[asked == "qform"] <= 0:
        template = "it has no {} (code 0)"
        raise InputError(
            path, said(template, ours(asked)), said("leave --affine {} out for this CT", ours(asked))
        )
    if codes[0] <= 0 and codes[1] <= 0:
        check_spacing(path, pixdim * unit[0, 0], unit_told)
        warning = said(
            "the file does not say how the patient lies (sform and qform codes are 0): "
            "the sides of the neck cannot be known"
        )
        return _Affine(_LPS_FROM_RAS @ unit @ np.diag([*pixdim, 1.0]), "none", False, (warning,))
    if codes[0] <= 0 or asked == "qform":
        check_spacing(path, pixdim * unit[0, 0], unit_told)
        qform = _qform(header)
        if qform is None:
            raise InputError(path, "its qform holds no valid rotation or position", _AGAIN)
        return _Affine(unit @ qform, "qform", True, _overruled(header, unit, "qform") if codes[0] > 0 else ())
    sform = unit @ np.asarray(header.get_sform(), dtype=np.float64)
    check_spacing(path, np.linalg.norm(sform[:3, :3], axis=0).tolist(), unit_told)
    if not np.isfinite(sform).all():
        raise InputError(path, "its sform holds values that are not numbers", _AGAIN)
    if abs(np.linalg.det(sform[:3, :3] / np.linalg.norm(sform[:3, :3], axis=0))) < 0.1:
        raise InputError(path, "its sform is flat or too sheared to use", _AGAIN)
    if asked == "sform":
        return _Affine(sform, "sform", True, _overruled(header, unit, "sform") if codes[1] > 0 else ())
    if codes[1] > 0:
        qform = _qform(header)
        if qform is None:
            raise InputError(
                path,
                "its qform holds no valid rotation or position, so it contradicts its sform",
                _AGAIN + _OR_ASK,
            )
        return _Affine(sform, "sform", True, _against_qform(path, sform, unit @ qform, header))
    check_spacing(path, np.abs(pixdim * unit[0, 0]).tolist(), unit_told)
    scaled = sform.copy()
    scaled[:3, :3] *= np.abs(pixdim * unit[0, 0]) / np.linalg.norm(sform[:3, :3], axis=0)
    return _Affine(sform, "sform", True, _compare(path, sform, scaled, header, "pixdim"))


def _qform(header: Any) -> Matrix | None:
    """The qform in the file's own unit; None where its quaternion, offset or pixdim holds none."""
    try:
        qform: Matrix = np.asarray(header.get_qform(), dtype=np.float64)
    except (HeaderDataError, ValueError):
        return None
    return qform if np.isfinite(qform).all() else None


def _overruled(header: Any, unit: Matrix, taken: str) -> tuple[Said, ...]:
    """What to tell where the user chose one of two statements that differ."""
    other = _qform(header)
    if other is None:
        return (
            said("its qform holds no valid rotation or position: the {} was used, as requested", ours(taken)),
        )
    sform, qform = unit @ np.asarray(header.get_sform(), dtype=np.float64), unit @ other
    if not np.isfinite(sform).all():
        return (
            said("its sform holds values that are not numbers: the {} was used, as requested", ours(taken)),
        )
    apart = float(np.linalg.norm(_corners(header) @ (sform - qform).T, axis=1).max())
    if apart < _TOLD_MM:
        return ()
    codes = said("codes {} and {}", int(header["sform_code"]), int(header["qform_code"]))
    return (
        said(
            "sform and qform ({}) differ by up to {:.2f} mm: the {} was used, as requested",
            codes,
            apart,
            ours(taken),
        ),
    )


def _against_qform(path: Path, sform: Matrix, qform: Matrix, header: Any) -> tuple[Said, ...]:
    """A qform cannot hold a shear: it is compared with the rigid lattice nearest to the sform."""
    size = (int(header["dim"][1]), int(header["dim"][2]), int(header["dim"][3]))
    rigid = sform.copy()
    rigid[:3, :3] = nearest_square(sform, size).vectors
    return _compare(path, rigid, qform, header, "qform")


def _compare(path: Path, sform: Matrix, other: Matrix, header: Any, name: str) -> tuple[Said, ...]:
    """Refuse or warn where another statement of the header contradicts the sform."""
    if np.linalg.det(other[:3, :3]) * np.linalg.det(sform[:3, :3]) <= 0:
        problem = said("its sform and {} differ in handedness", ours(name))
        raise InputError(path, problem, _agree(name))
    voxels = float(np.abs(_corners(header) @ (np.linalg.inv(sform) @ other - np.eye(4)).T).max())
    if voxels > 1:
        problem = said("its sform and {} differ by up to {:.1f} voxels", ours(name), voxels)
        raise InputError(path, problem, _agree(name))
    if voxels < _TOLD_VOXELS:
        return ()
    codes = (
        said(" (codes {} and {})", int(header["sform_code"]), int(header["qform_code"]))
        if name == "qform"
        else said("")
    )
    return (
        said("sform and {}{} differ by up to {:.2f} voxels: the sform was used", ours(name), codes, voxels),
    )


def _corners(header: Any) -> Matrix:
    """Corner voxels (8, 4) as (i, j, k, 1)."""
    return np.column_stack([corner_indices([int(n) for n in header["dim"][1:4]]), np.ones(8)])


def _agree(name: str) -> Said:
    return said("{} so that they agree{}", ours(_AGAIN), ours(_OR_ASK if name == "qform" else ""))


_HEAD: Final = 352  # a NIfTI-1 header with its extension flag; NIfTI-2's mark ends at 12
_HEADERS: Final = (".hdr", ".hdr.gz")
_VOXELS: Final = (".img", ".img.gz")


def _is_nifti(found: Head) -> bool:
    head = found.content
    if head.startswith(b"\x1f\x8b"):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, _HEAD)
        except zlib.error:
            return False
    for order in ("little", "big"):
        size = int.from_bytes(head[:4], order)
        if size == 348 and head[344:348] in (b"n+1\0", b"ni1\0"):
            return True
        if size == 540 and head[4:8] in (b"n+2\0", b"ni2\0"):
            return True
    return False


def _beside(path: Path) -> tuple[Path, ...]:
    """What may be the voxels of the header of a pair."""
    ending = next(ending for ending in _HEADERS if path.name.lower().endswith(ending))
    return tuple(path.with_name(path.name[: -len(ending)] + voxels) for voxels in _VOXELS)


FORMAT: Final = Format(
    name="nifti",
    title="NIfTI",
    choices=("nii", "nii.gz"),
    endings=(".nii", ".nii.gz"),
    other_endings=(".hdr.gz", ".hdr", ".img"),
    recognises=_is_nifti,
    read=read_nifti,
    detached=lambda name: name.endswith(_HEADERS),
    data_files=_beside,
)
