"""The key slices of each node as Secondary Capture images, for viewers that show nothing else.

A page shows one node: the planes through it in the patient's axes, however the CT was scanned or stored, with
its outline and its numbers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage
from scipy import ndimage

from aiene.errors import CaseError
from aiene.export import identity
from aiene.export.case import ExportCase, Findings, findings_of
from aiene.export.rtstruct import outlines
from aiene.export.source_series import planes
from aiene.geometry.grid import Grid, Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import Case
from aiene.ingest.dicom.header_values import value_of
from aiene.ingest.read import read_case
from aiene.report.document import RESEARCH_ONLY
from aiene.results.records import NodeResult

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
GAP: Final = 12
_HEAD: Final = 84
_FOOT: Final = 30
PAGE: Final = (2 * PANEL + 3 * GAP, _HEAD + 2 * (PANEL + GAP) + _FOOT)
"""Width and height in pixels."""

NOTICE: Final = RESEARCH_ONLY.rstrip(".")
_NODE_COLOUR: Final = (255, 210, 0)
_OTHER_COLOUR: Final = (0, 190, 255)
_TEXT_COLOUR: Final = (235, 235, 235)
_WARNING_COLOUR: Final = (255, 120, 90)
_FINE: Final = 3  # outlines are drawn this much larger, so that they are smooth
_SERIES_NUMBER: Final = 9104
_ZOOM_MM: Final = 70.0
"""Side of the close pictures, more where a node is larger."""

_ZOOMED: Final[tuple[View, ...]] = ("axial", "coronal", "sagittal")


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


# Pages


@dataclass(frozen=True)
class Words:
    """What a page says.

    Parameters
    ----------
    title : name and ENE of the node.
    facts : the line below it.
    captions : of each picture.
    source : what made the result.
    """

    title: str
    facts: str
    captions: tuple[str, ...]
    source: str


def draw_page(pictures: Sequence[Picture], words: Words) -> npt.NDArray[np.uint8]:
    """The page.

    Parameters
    ----------
    pictures : four, of `PANEL` pixels.

    Returns
    -------
    uint8 (row, column, RGB).
    """
    page = Image.new("RGB", PAGE, (16, 16, 16))
    pen = ImageDraw.Draw(page)
    pen.text((GAP, 8), words.title, font=_font(30), fill=_NODE_COLOUR)
    pen.text((GAP, 50), words.facts, font=_font(18), fill=_TEXT_COLOUR)
    for place, (picture, caption) in enumerate(zip(pictures, words.captions, strict=True)):
        row, column = divmod(place, 2)
        corner = GAP + column * (PANEL + GAP), _HEAD + row * (PANEL + GAP)
        page.paste(panel(picture, caption), corner)
    foot = PAGE[1] - _FOOT + 2
    pen.text((GAP, foot), words.source, font=_font(15), fill=_TEXT_COLOUR)
    pen.text((PAGE[0] - GAP, foot), NOTICE, font=_font(15), fill=_WARNING_COLOUR, anchor="ra")
    return np.asarray(page, dtype=np.uint8)


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
    _outline(pen, picture.mask, _NODE_COLOUR, 2)
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
        font=_font(size),
        fill=(255, 255, 255),
        anchor=anchor,
        stroke_width=2,
        stroke_fill=(0, 0, 0),
    )


def _font(size: int) -> Any:
    return ImageFont.load_default(size=size)


def build(case: ExportCase, ct: Volume | None = None) -> list[Dataset]:
    """One RGB page for each node: the axial slice of its largest area, whole and close, coronal and sagittal.

    Nothing on it names the patient. All pages are one series.

    Parameters
    ----------
    case : its nodes are drawn.
    ct : the source series in HU; read from the source's files if None.

    Raises
    ------
    InputError : the pixels of the source cannot be read.
    CaseError : a node lies outside the source's slices.
    """
    found = findings_of(case)
    if not found.present:
        return []
    volume = read_source(case) if ct is None else ct
    shown = as_shown(volume)
    nodes = as_shown(pull_labels(case.nodes, volume.grid)).array
    pages = [(node, page(shown, nodes, node, case)) for node in found.present]
    made = [_object(case, found, node, pixels, n) for n, (node, pixels) in enumerate(pages, start=1)]
    return _named(made)


def read_source(case: ExportCase) -> Volume:
    """The source series in HU, a tilted one undone as a run does it.

    Raises
    ------
    InputError : it cannot be read.
    """
    first = case.source.datasets[0]
    files = tuple(dict.fromkeys(case.source.files))
    return read_case(Case("source", "dicom", files, series_uid=str(first.SeriesInstanceUID))).volume


def page(ct: Volume, nodes: npt.NDArray[Any], node: NodeResult, case: ExportCase) -> npt.NDArray[np.uint8]:
    """The page of a node, uint8 (row, column, RGB).

    Parameters
    ----------
    ct, nodes : as `key_slices.as_shown` gives them, on one grid.
    """
    mask = nodes == node.value
    if not mask.any():
        raise CaseError(
            f"{node.name} lies outside the slices of the source series",
            "give the whole series that the run was made from",
        )
    through = key_index(mask)
    size, spacing = np.array(ct.grid.size), np.array(ct.grid.spacing)
    low, high = (f(np.argwhere(mask), axis=0) for f in (np.min, np.max))
    close = max(_ZOOM_MM, 1.4 * float(((high - low + 1) * spacing).max()))
    whole = float((size * spacing)[1:].max())
    middle_of_image = (float(through[0]), *((size[1:] - 1) / 2).tolist())
    middle_of_node = tuple(((low + high) / 2).tolist())
    pictures = [_picture(ct, nodes, node, "axial", through, middle_of_image, whole)]
    pictures += [_picture(ct, nodes, node, view, through, middle_of_node, close) for view in _ZOOMED]
    return draw_page(pictures, _words(node, case, ct, through))


def _picture(
    ct: Volume,
    nodes: npt.NDArray[Any],
    node: NodeResult,
    view: View,
    through: tuple[int, int, int],
    centre: Any,
    side_mm: float,
) -> Picture:
    return picture(ct, nodes, node.value, view, through=through, centre=centre, side_mm=side_mm, pixels=PANEL)


def _words(node: NodeResult, case: ExportCase, ct: Volume, through: tuple[int, int, int]) -> Words:
    maker = case.maker
    ene = "ENE not judged"
    if node.ene is not None:
        ene = f"ENE probability {node.ene:.2f} (threshold {maker.ene_threshold:g}: {node.verdict})"
    positive = "" if node.pos is None else f"positivity {node.pos:.2f}   "
    x, y, z = ct.grid.points(np.array(through)).tolist()
    number = _source_number(case, np.array([x, y, z]))
    window = f"W {WIDTH_HU:.0f} L {LEVEL_HU:.0f}"
    return Words(
        title=f"{node.name}   {ene}",
        facts=(
            f"volume {node.native_volume_mm3 / 1000:.2f} ml   {_axes(node)}{positive}"
            f"side {node.side or 'not known'}   at ({x:.0f}, {y:.0f}, {z:.0f}) mm LPS"
        ),
        captions=(f"axial, largest area{number}   {window}", "axial", "coronal", "sagittal"),
        source=f"aiene {maker.software_version}, {maker.bundle_name} {maker.bundle_version}. {maker.notice}",
    )


def _axes(node: NodeResult) -> str:
    """The axes of the contour in the axial plane."""
    if node.native_long_axis_mm is None or node.native_short_axis_mm is None:
        return ""
    return f"{node.native_long_axis_mm:.0f} x {node.native_short_axis_mm:.0f} mm   "


def _source_number(case: ExportCase, point: npt.NDArray[np.float64]) -> str:
    """The number that a viewer shows for the source image nearest to a point."""
    where = planes(case.source)
    up = np.cross(where[0].along_row, where[0].along_column)
    nearest = int(np.argmin([abs((plane.origin - point) @ up) for plane in where]))
    number = case.source.frames[nearest] or value_of(case.source.datasets[nearest], "InstanceNumber")
    return "" if number is None else f", image {number}"


def _object(
    case: ExportCase, found: Findings, node: NodeResult, pixels: npt.NDArray[np.uint8], number: int
) -> Dataset:
    when = case.maker.started
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = SecondaryCaptureImageStorage
    identity.copy_identity(case.source.datasets[0], made)
    made.Modality, made.SeriesNumber, made.InstanceNumber = "OT", _SERIES_NUMBER, number
    made.SeriesDescription = f"AI-ENE key slices. {identity.RESEARCH}"
    made.Manufacturer, made.ManufacturerModelName = identity.MANUFACTURER, identity.MODEL_NAME
    made.SoftwareVersions = case.maker.software_version
    made.ConversionType, made.BurnedInAnnotation = "WSD", "NO"  # no annotation that identifies a patient
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.ContentDate, made.ContentTime = when.strftime("%Y%m%d"), when.strftime("%H%M%S")
    made.BodyPartExamined = value_of(case.source.datasets[0], "BodyPartExamined") or "NECK"
    made.PatientOrientation = None  # four pictures in three planes: no one orientation
    made.DerivationDescription = f"Key slices of {node.name} with its outline"
    made.ImageComments = f"{node.name}. {NOTICE}."
    made.LossyImageCompression = "00"
    made.SourceImageSequence = _source_images(case, found, node)
    made.SamplesPerPixel, made.PhotometricInterpretation, made.PlanarConfiguration = 3, "RGB", 0
    made.Rows, made.Columns = pixels.shape[:2]
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 8, 8, 7, 0
    made.PixelData = pixels.tobytes() + b"\0" * (pixels.size % 2)
    identity.stamp(made, when)
    return made


def _source_images(case: ExportCase, found: Findings, node: NodeResult) -> list[Dataset]:
    """The source slices that the node lies on."""
    items = []
    for k in np.flatnonzero((found.nodes == node.value).any(axis=(1, 2))):
        image, frame = case.source.datasets[k], case.source.frames[k]
        item, purpose = Dataset(), Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        if frame is not None:
            item.ReferencedFrameNumber = frame
        purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
        purpose.CodeMeaning = "Source image for image processing operation"
        item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return items


def _named(pages: list[Dataset]) -> list[Dataset]:
    """Pages of one series, their UIDs made from their content."""
    contents = []
    for made in pages:
        made.SeriesInstanceUID = made.SOPInstanceUID = "0.0"
        made.file_meta.MediaStorageSOPInstanceUID = "0.0"
        contents.append(hashlib.sha256(identity.encoded(made)).hexdigest())
    for made, content in zip(pages, contents, strict=True):
        made.SeriesInstanceUID = identity.uid_of("series", "secondary-capture", *contents)
        made.SOPInstanceUID = identity.uid_of("instance", "secondary-capture", content)
        made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    return pages
