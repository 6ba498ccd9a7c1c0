"""The key slices of each node as Secondary Capture images, for viewers that show nothing else.

A page shows one node: the planes through it in the patient's axes, however the CT was scanned or stored, with
its outline and its numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

from aiene.csv_tables import probability_text
from aiene.errors import CaseError, ours, said
from aiene.export import identity
from aiene.export.case import ExportCase, Findings, findings_of, planes
from aiene.geometry.grid import Volume, triple
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import Case
from aiene.ingest.dicom.header_values import value_of
from aiene.ingest.read import read_case
from aiene.report.document import RESEARCH_ONLY
from aiene.results.pictures import (
    LEVEL_HU,
    NODE_COLOUR,
    PANEL,
    WIDTH_HU,
    Picture,
    View,
    as_shown,
    font,
    key_index,
    panel,
    picture,
)
from aiene.results.records import NodeResult

GAP: Final = 12
_HEAD: Final = 84
_FOOT: Final = 30
PAGE: Final = (2 * PANEL + 3 * GAP, _HEAD + 2 * (PANEL + GAP) + _FOOT)
"""Width and height in pixels."""

NOTICE: Final = RESEARCH_ONLY.rstrip(".")
_TEXT_COLOUR: Final = (235, 235, 235)
_WARNING_COLOUR: Final = (255, 120, 90)
_SERIES_NUMBER: Final = 9104
_ZOOM_MM: Final = 70.0
"""Side of the close pictures, more where a node is larger."""

_ZOOMED: Final[tuple[View, ...]] = ("axial", "coronal", "sagittal")


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
    pen.text((GAP, 8), words.title, font=font(30), fill=NODE_COLOUR)
    pen.text((GAP, 50), words.facts, font=font(18), fill=_TEXT_COLOUR)
    for place, (shown, caption) in enumerate(zip(pictures, words.captions, strict=True)):
        row, column = divmod(place, 2)
        corner = GAP + column * (PANEL + GAP), _HEAD + row * (PANEL + GAP)
        page.paste(panel(shown, caption), corner)
    foot = PAGE[1] - _FOOT + 2
    pen.text((GAP, foot), words.source, font=font(15), fill=_TEXT_COLOUR)
    pen.text((PAGE[0] - GAP, foot), NOTICE, font=font(15), fill=_WARNING_COLOUR, anchor="ra")
    return np.asarray(page, dtype=np.uint8)


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
    identity.name_by_content("secondary-capture", *made)
    return made


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
    ct, nodes : as `pictures.as_shown` gives them, on one grid.
    """
    mask = nodes == node.value
    if not mask.any():
        problem = said("{} lies outside the slices of the source series", ours(node.name))
        raise CaseError(problem, "give the complete series that the run was made from")
    through = key_index(mask)
    size, spacing = np.array(ct.grid.size), np.array(ct.grid.spacing)
    low, high = (f(np.argwhere(mask), axis=0) for f in (np.min, np.max))
    close = max(_ZOOM_MM, 1.4 * float(((high - low + 1) * spacing).max()))
    whole = float((size * spacing)[1:].max())
    middle_of_image = (float(through[0]), *((size[1:] - 1) / 2).tolist())
    middle_of_node = triple((low + high) / 2)
    shown = partial(picture, ct, nodes, node.value, through=through, pixels=PANEL)
    pictures = [shown("axial", centre=middle_of_image, side_mm=whole)]
    pictures += [shown(view, centre=middle_of_node, side_mm=close) for view in _ZOOMED]
    return draw_page(pictures, _words(node, case, ct, through))


def _words(node: NodeResult, case: ExportCase, ct: Volume, through: tuple[int, int, int]) -> Words:
    maker = case.maker
    ene = "ENE not judged"
    if node.ene is not None:
        shown = probability_text(node.ene, (maker.ene_threshold,), missing="")
        ene = f"ENE probability {shown} (threshold {maker.ene_threshold:g}: {node.verdict})"
    positive = "" if node.pos is None else f"pos {probability_text(node.pos, missing='')}   "
    x, y, z = ct.grid.points(np.array(through)).tolist()
    number = _source_number(case, np.array([x, y, z]))
    window = f"W {WIDTH_HU:.0f} L {LEVEL_HU:.0f}"
    return Words(
        title=f"{node.name}   {ene}",
        facts=(
            f"volume {node.native_volume_mm3:.0f} mm3   {_axes(node)}{positive}"
            f"side {node.side or 'not known'}   at ({x:.1f}, {y:.1f}, {z:.1f}) mm LPS"
        ),
        captions=(f"axial, largest area{number}   {window}", "axial", "coronal", "sagittal"),
        source=f"aiene {maker.software_version}, {maker.bundle_name} {maker.bundle_version}. {maker.notice}",
    )


def _axes(node: NodeResult) -> str:
    if node.native_long_axis_mm is None or node.native_short_axis_mm is None:
        return ""
    return f"axes {node.native_long_axis_mm:.1f} x {node.native_short_axis_mm:.1f} mm   "


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
    made = identity.new_object(case, SecondaryCaptureImageStorage, ExplicitVRLittleEndian)
    made.Modality, made.SeriesNumber, made.InstanceNumber = "OT", _SERIES_NUMBER, number
    made.SeriesDescription = f"AI-ENE key slices. {identity.RESEARCH}"
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
    items = []
    for k in np.flatnonzero((found.nodes == node.value).any(axis=(1, 2))):
        item, purpose = identity.reference(case.source.datasets[k], case.source.frames[k]), Dataset()
        purpose.CodeValue, purpose.CodingSchemeDesignator = "121322", "DCM"
        purpose.CodeMeaning = "Source image for image processing operation"
        item.PurposeOfReferenceCodeSequence = [purpose]
        items.append(item)
    return items
