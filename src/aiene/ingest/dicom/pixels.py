"""Stored values to HU, slice by slice: each slice by its own slope and intercept."""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
)
from scipy import ndimage

from aiene.errors import InputError, file_name, joined, ours, said, uid_name
from aiene.ingest.dicom.header import DAMAGED, Frame, numbers, quiet, text
from aiene.ingest.lattice import AIR_HU, fits_int16

_TISSUE_HU: Final = (-900.0, 3000.0)
"""A padding value in this range could be a patient's: it counts only where it touches the edge."""

_ALWAYS_LOSSY: Final = frozenset({JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless})
_LAYOUT: Final = ("BitsAllocated", "BitsStored", "PixelRepresentation")
_JPEG_END: Final = b"\xff\xd9"
_EXTRAS: Final = (
    "install aiene's requirements again (pylibjpeg, pylibjpeg-libjpeg, pylibjpeg-openjpeg, pyjpegls)"
)


def read_stack(places: Sequence[Sequence[Frame]]) -> npt.NDArray[Any]:
    """HU of a stack of slices.

    Parameters
    ----------
    places : for each slice the frames that lie there; more than one must hold the same HU.

    Returns
    -------
    (slice, row, column); int16 where every value is whole and fits, else float32. Padding is air (-1024).

    Raises
    ------
    InputError : pixel data is missing, cut off, compressed in a way that cannot be decoded or no plain grey
        image; the rescale slope is missing or zero; two slices at one place differ (names both).
    """
    first = places[0][0]
    array: npt.NDArray[Any] = np.zeros((len(places), first.rows, first.columns), dtype=np.int16)
    opened = _Opened()
    for k, frames in enumerate(places):
        hu = read_frame(frames[0], opened)
        for twin in frames[1:]:
            if not np.array_equal(hu, read_frame(twin, opened)):
                raise InputError(
                    frames[0].path,
                    said("it and {} have the same position but show different images", file_name(twin.path)),
                    "remove the one that does not belong to the series",
                )
        if array.dtype == np.int16 and not fits_int16(hu):
            array = array.astype(np.float32)
        array[k] = hu
    return array


class _Opened:
    """The last file that was read, so that a multi-frame file is parsed once."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._dataset = Dataset()

    def get(self, path: Path) -> Dataset:
        if path != self._path:
            with quiet():
                dataset = pydicom.dcmread(path, force=True)
                # Files of old archives lack their meta header: uncompressed then, in the encoding as found.
                implicit, little = dataset.original_encoding
                if "TransferSyntaxUID" not in dataset.file_meta:
                    plain = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
                    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else plain
                self._dataset, self._path = dataset, path
        return self._dataset


def read_frame(frame: Frame, opened: _Opened | None = None) -> npt.NDArray[np.float64]:
    """HU (row, column) of one slice, in float64; padding is air.

    Raises
    ------
    InputError : as for `read_stack`.
    """
    slope, intercept = check_rescale(frame)
    with quiet():
        try:
            dataset = (opened or _Opened()).get(frame.path)
            _check_plain(dataset, frame)
            stored = _stored(dataset, frame)
        except DAMAGED as error:
            raise _undecodable(frame) from error
        if stored.shape != (frame.rows, frame.columns):
            raise InputError(
                frame.path, said("its image has the shape {}", stored.shape), "export the series again"
            )
        hu: npt.NDArray[np.float64] = stored.astype(np.float64) * slope + intercept
        hu[_padding(stored, dataset, slope, intercept)] = AIR_HU
    return hu


def check_rescale(frame: Frame) -> tuple[float, float]:
    """Slope and intercept of a slice, from its header alone.

    Raises
    ------
    InputError : they are missing, or the slope is 0.
    """
    if frame.slope is None or frame.intercept is None:
        raise InputError(
            frame.path, "it has no rescale slope and intercept, so its HU are unknown", "export the CT again"
        )
    if frame.slope == 0:
        raise InputError(frame.path, "its rescale slope is 0", "export the CT again")
    return frame.slope, frame.intercept


def is_lossy(path: Path) -> bool:
    """Whether a file says, or shows by its transfer syntax, that its image was compressed with a loss."""
    try:
        with quiet():
            header = pydicom.dcmread(
                path, force=True, stop_before_pixels=True, specific_tags=["LossyImageCompression"]
            )
            lossy = text(header, "LossyImageCompression")
    except DAMAGED:
        return False
    return lossy == "01" or text(header.file_meta, "TransferSyntaxUID") in _ALWAYS_LOSSY


def _stored(dataset: Dataset, frame: Frame) -> npt.NDArray[Any]:
    """The stored numbers of a frame, what a grey CT can only be supplied where the header does not say it."""
    if frame.frames == 1:
        dataset.pop("NumberOfFrames", None)  # whatever it says: 0, or no number at all
    if numbers(dataset, "SamplesPerPixel", 1) is None:
        dataset.SamplesPerPixel = 1
    if not text(dataset, "PhotometricInterpretation").startswith("MONOCHROME"):
        dataset.PhotometricInterpretation = "MONOCHROME2"
    lacking = [keyword for keyword in _LAYOUT if numbers(dataset, keyword, 1) is None]
    if lacking:
        problem = said("its header does not say {}", joined(" and ", map(ours, lacking)))
        raise InputError(frame.path, problem, "export the CT again")
    shift = _spare_bits(dataset, frame)
    index = frame.index if frame.frames > 1 else None
    stored: npt.NDArray[Any]
    if not shift:
        stored = pixel_array(dataset, index=index)
        return stored
    bits, signed = int(dataset.BitsStored), dataset.PixelRepresentation == 1
    whole = copy(dataset)
    whole.BitsStored, whole.PixelRepresentation = whole.BitsAllocated, 0
    whole.HighBit = whole.BitsAllocated - 1
    stored = (pixel_array(whole, index=index).astype(np.int64) >> shift) & ((1 << bits) - 1)
    return stored - ((stored >> (bits - 1)) << bits) if signed else stored


def _spare_bits(dataset: Dataset, frame: Frame) -> int:
    """How many bits lie below the stored ones: none since 2014, when the standard retired such images."""
    high, used, there = (numbers(dataset, k, 1) for k in ("HighBit", "BitsStored", "BitsAllocated"))
    if high is None or used is None or there is None or high[0] == used[0] - 1:
        return 0
    shift = int(high[0] - used[0]) + 1
    packed = dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if shift < 0 or high[0] >= there[0] or packed:
        template = "its header contradicts itself: {:.0f} bits stored, the highest of them {:.0f}"
        raise InputError(frame.path, said(template, used[0], high[0]), "export the CT again")
    return shift


def _check_plain(dataset: Dataset, frame: Frame) -> None:
    """Refuse colour, and compressed data without its end, which some decoders fill with grey in silence."""
    coloured = text(dataset, "PhotometricInterpretation").startswith(("RGB", "YBR", "PALETTE"))
    if coloured or numbers(dataset, "SamplesPerPixel", 1) not in (None, (1.0,)):
        raise InputError(frame.path, "it is a colour image", "give the CT itself")
    if "PixelData" not in dataset:
        raise InputError(
            frame.path, "its pixel data is missing or cut off in the middle", "copy or export the file again"
        )
    syntax = dataset.file_meta.TransferSyntaxUID if "TransferSyntaxUID" in dataset.file_meta else None
    if syntax is None or not syntax.is_encapsulated or "JPEG" not in syntax.name:
        return
    encoded = get_frame(dataset.PixelData, frame.index, number_of_frames=frame.frames)
    if not encoded.rstrip(b"\0").endswith(_JPEG_END):
        raise InputError(frame.path, "its compressed image is cut off", "copy or export the file again")


def _undecodable(frame: Frame) -> InputError:
    try:
        with quiet():
            dataset = pydicom.dcmread(frame.path, force=True, stop_before_pixels=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is not None and not syntax.is_transfer_syntax:
            problem = "its transfer syntax is unknown, so its image cannot be decoded"
            return InputError(frame.path, problem, "export it again")
        syntax = dataset.file_meta.TransferSyntaxUID
        name: object = uid_name(str(syntax)) if syntax.name == syntax else ours(syntax.name)
        compressed = syntax.is_compressed
    except DAMAGED:
        name, compressed = ours("unknown"), False
    if not compressed:
        return InputError(frame.path, "its pixel data is cut off or damaged", "copy or export the file again")
    problem = said("its image, compressed as {}, is damaged or cannot be decoded", name)
    return InputError(frame.path, problem, said("copy the file again, or {}", ours(_EXTRAS)))


def _padding(
    stored: npt.NDArray[Any], dataset: Dataset, slope: float, intercept: float
) -> npt.NDArray[np.bool_]:
    """Where the pixels are padding around the scanned circle (PS3.3 C.7.5.1.1.2)."""
    first, last = _padding_range(dataset)
    if first is None or last is None:
        return np.zeros(stored.shape, dtype=bool)
    low, high = min(first, last), max(first, last)
    there: npt.NDArray[np.bool_] = (stored >= low) & (stored <= high)
    reached = sorted((low * slope + intercept, high * slope + intercept))
    if reached[1] <= _TISSUE_HU[0] or reached[0] >= _TISSUE_HU[1]:
        return there
    parts, _ = ndimage.label(there)
    rim = np.unique(np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]]))
    return np.isin(parts, rim[rim > 0])


def _padding_range(dataset: Dataset) -> tuple[int | None, int | None]:
    """First and last padding value, as the decoded pixels show them.

    The header may write the value of signed pixels unsigned, or one that needs more bits than are stored;
    pydicom keeps the stored bits of each pixel only.
    """
    used = int(dataset.BitsStored)
    values = []
    for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit"):
        number = numbers(dataset, keyword, 1)
        value = None if number is None else int(number[0]) & ((1 << used) - 1)
        if value is not None and dataset.PixelRepresentation == 1 and value >> (used - 1):
            value -= 1 << used
        values.append(value)
    return values[0], values[1] if values[1] is not None else values[0]
