"""DICOM Segmentation (PS3.3 A.51) on the source slices: the nodes and the primary tumour, or probabilities.

A run keeps no probabilities, so they are computed again from what it kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage
from scipy import ndimage

from aiene.errors import AieneError, CaseError, need, said
from aiene.export import codes
from aiene.export.case import PRIMARY, ExportCase, Findings, SourceSeries, planes
from aiene.export.identity import (
    MANUFACTURER,
    MODEL_NAME,
    RESEARCH,
    ascii_of,
    check_source,
    copy_frame_of_reference,
    copy_identity,
    for_highdicom,
    name_by_content,
    parameters,
    reference,
    referenced_series,
    stamp,
    tracking_uid,
    uid_of,
)
from aiene.finished_runs import RunRecord, read_image
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.dicom.header import quiet
from aiene.ingest.dicom.header_values import headers_of, value_of
from aiene.models.bundle import Bundle, find_bundle
from aiene.nodes.node import GTVN, GTVP, contours, parse_fg_labels

if TYPE_CHECKING:
    from aiene.segment.segmenter import Segmenter


SERIES_NUMBER: Final = 9001
FRACTIONAL_SERIES_NUMBER: Final = 9005
LEVELS: Final = 255
"""What a fractional segmentation stores for probability 1."""

_COLOURS: Final = ((87.7, -86.2, 83.2), (91.1, -48.1, -14.1), (97.1, -21.6, 94.5), (60.3, 98.2, -60.8))
"""CIELab: green, cyan, yellow and magenta for the nodes by number; the tumour is orange."""
_PRIMARY_COLOUR: Final = (66.9, 43.1, 73.9)


def build(case: ExportCase, found: Findings) -> Dataset:
    """A binary segmentation of everything that was found.

    Parameters
    ----------
    found : of this case; something in it.

    Raises
    ------
    CaseError : there is nothing to show, or the source images lack what a segmentation must refer to.
    MissingExtraError : highdicom is not installed.
    """
    names = found.names
    if not names:
        raise CaseError("nothing was found, so there is nothing to segment", "see the report (SR)")
    first = found.block[0].start
    marked = (found.nodes[found.block] > 0) | found.primary[found.block]
    used = first + np.flatnonzero(marked.any(axis=(1, 2)))
    return _build(case, _stack(found, used), used, names, fractional=False)


def build_fractional(case: ExportCase, probabilities: dict[str, npt.NDArray[np.float32]]) -> Dataset:
    """A fractional segmentation of the network's probabilities.

    Parameters
    ----------
    probabilities : by name (`GTVn`, `GTVp`), float32 (slice, row, column) on the source slices, 0 to 1; those
        that are stored as 0 everywhere are left out.

    Raises
    ------
    CaseError : no voxel has a probability that can be stored, or as `build`.
    """
    stored = {name: quantised(values) for name, values in probabilities.items()}
    names = [name for name, values in stored.items() if values.any()]
    if not names:
        raise CaseError("no voxel has a probability over 0", "see the report (SR)")
    used = np.flatnonzero(np.any([stored[name].any(axis=(1, 2)) for name in names], axis=0))
    pixels = np.stack([stored[name][used].astype(np.float32) / LEVELS for name in names], axis=-1)
    return _build(case, pixels, used, names, fractional=True)


def quantised(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Probabilities as a fractional segmentation stores them: 255 is 1."""
    return np.rint(np.clip(probabilities, 0, 1) * LEVELS).astype(np.uint8)


def _stack(found: Findings, used: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    """The used slices: a label map where nothing overlaps, else one binary array a segment (last axis)."""
    nodes, primary = found.nodes[used], found.primary[used]
    renumber = np.zeros(int(nodes.max()) + 1, dtype=np.uint16)
    for number, node in enumerate(found.present, start=1):
        renumber[node.value] = number
    labels: npt.NDArray[Any] = renumber[nodes]
    if not primary.any():
        return labels
    last = len(found.present) + 1
    if not (primary & (labels > 0)).any():
        labels[primary] = last
        return labels
    apart = np.empty((last, *labels.shape), dtype=np.uint8)
    for number in range(1, last):
        np.equal(labels, number, out=apart[number - 1], casting="unsafe")
    apart[last - 1] = primary
    return np.moveaxis(apart, 0, -1)


def _build(
    case: ExportCase,
    pixels: npt.NDArray[Any],
    used: npt.NDArray[np.int64],
    names: Sequence[str],
    *,
    fractional: bool,
) -> Dataset:
    hd: Any = need("highdicom", extra="dicom", purpose="DICOM export")
    check_source(case.source)
    with quiet():
        made: Dataset = hd.seg.Segmentation(
            source_images=_stand_ins(case.source, used),
            pixel_array=pixels,
            segmentation_type="FRACTIONAL" if fractional else "BINARY",
            max_fractional_value=LEVELS,
            segment_descriptions=[_segment(hd, case, n, name) for n, name in enumerate(names, start=1)],
            series_number=FRACTIONAL_SERIES_NUMBER if fractional else SERIES_NUMBER,
            content_description=f"Malignant lymph nodes. {RESEARCH}",
            content_label="AI_ENE_PROB" if fractional else "AI_ENE_NODES",
            series_description=f"AI-ENE {'probabilities' if fractional else 'nodes'}. {RESEARCH}",
            **for_highdicom(case),
        )
        made = _finish(case, made, used)
        made.PixelData = _packed(made)
    name_by_content("seg-fractional" if fractional else "seg", made)
    return made


def _finish(case: ExportCase, made: Dataset, used: npt.NDArray[np.int64]) -> Dataset:
    """What highdicom cannot know, or draws by chance or from the clock."""
    first = case.source.datasets[0]
    copy_identity(first, made)
    copy_frame_of_reference(first, made)
    stamp(made, case.maker.started)
    made.ReferencedSeriesSequence = referenced_series(case.source)
    made.SourceImageSequence = referenced_series(case.source)[0].ReferencedInstanceSequence
    organisation = uid_of("dimensions", str(first.SeriesInstanceUID), case.maker.bundle_sha256)
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = organisation
    stand_ins = {f"1.{k + 1}": int(k) for k in used}
    for group in made.PerFrameFunctionalGroupsSequence:
        for derivation in group.get("DerivationImageSequence", ()):
            for image in derivation.SourceImageSequence:
                k = stand_ins.get(str(image.ReferencedSOPInstanceUID))
                if k is not None:  # frames of several segments share the item of their slice
                    image.update(reference(case.source.datasets[k], case.source.frames[k]))
    return made


def _packed(made: Dataset) -> bytes:
    """The pixels as PS3.5 wants them.

    highdicom 0.28.2 begins a new byte for each frame of fewer than 8 pixels, and fills up to an even length
    with the digit 0 instead of a zero byte.
    """
    pixels, count = int(made.Rows) * int(made.Columns), int(made.NumberOfFrames)
    if made.BitsAllocated == 1:
        own = 8 if pixels < 8 else pixels
        bits = np.unpackbits(np.frombuffer(made.PixelData, np.uint8), bitorder="little", count=count * own)
        content = np.packbits(bits.reshape(count, own)[:, :pixels], bitorder="little").tobytes()
    else:
        content = bytes(made.PixelData)[: pixels * count]
    return content + b"\0" * (len(content) % 2)


def _stand_ins(source: SourceSeries, used: npt.NDArray[np.int64]) -> list[Dataset]:
    """Plain CT headers of the used slices, numbered by their instance UID, in one shared orientation.

    The source's own headers may lack what highdicom asks for, hold words that it refuses, or be the frames of
    one file; what is true of patient, study and references is copied afterwards.
    """
    thickness = _thickness(source)
    return [_stand_in(source.datasets[0], source.datasets[k], int(k), thickness) for k in used]


def _stand_in(first: Dataset, own: Dataset, k: int, thickness: tuple[float, float]) -> Dataset:
    made = Dataset()
    made.SOPClassUID, made.SOPInstanceUID = CTImageStorage, f"1.{k + 1}"
    made.StudyInstanceUID, made.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
    made.FrameOfReferenceUID = first.FrameOfReferenceUID
    made.PatientName = made.PatientID = made.PatientBirthDate = made.PatientSex = ""
    made.AccessionNumber = made.StudyID = made.StudyDate = made.StudyTime = ""
    made.Modality, made.Rows, made.Columns = "CT", first.Rows, first.Columns
    made.ImagePositionPatient = own.ImagePositionPatient
    made.ImageOrientationPatient, made.PixelSpacing = first.ImageOrientationPatient, first.PixelSpacing
    made.SliceThickness, made.SpacingBetweenSlices = (f"{value:.10g}" for value in thickness)
    lossy = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
    for element in headers_of(first, lossy).elements.values():
        if not element.is_empty:
            made.add(element)
    return made


def _thickness(source: SourceSeries) -> tuple[float, float]:
    """Thickness of a slice, as the source tells it or as far as the next, and distance along the normal."""
    spacing = source.grid.spacing[0]
    told = value_of(source.datasets[0], "SliceThickness")
    return (float(told) if told is not None and float(told) > 0 else spacing), spacing


def _segment(hd: Any, case: ExportCase, number: int, name: str) -> Dataset:
    maker, primary = case.maker, name == PRIMARY
    node = next((node for node in case.result.nodes if node.name == name), None)
    side = None if node is None else codes.SIDES.get(node.side)
    place = 0 if node is None else (node.value - 1) % len(_COLOURS)
    made: Dataset = hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.ABNORMAL_STRUCTURE,
        segmented_property_type=codes.PRIMARY_NEOPLASM if primary else codes.SECONDARY_NEOPLASM,
        algorithm_type="SEMIAUTOMATIC" if maker.own_masks else "AUTOMATIC",
        algorithm_identification=hd.AlgorithmIdentificationSequence(
            name=f"{MODEL_NAME}, bundle {maker.bundle_name}"[:64],
            version=ascii_of(f"{maker.software_version}, bundle {maker.bundle_version}")[:64],
            family=codes.ARTIFICIAL_INTELLIGENCE,
            source=MANUFACTURER,
            parameters=parameters(case),
        ),
        tracking_id=name,
        tracking_uid=tracking_uid(case, name),
        anatomic_regions=[codes.HEAD_AND_NECK if primary else codes.LYMPH_NODE],
        display_color=hd.color.CIELabColor(*(_PRIMARY_COLOUR if primary else _COLOURS[place])),
    )
    made.SegmentDescription = RESEARCH
    if side is not None:
        made.AnatomicRegionSequence[0].AnatomicRegionModifierSequence = [hd.sr.CodedConcept.from_code(side)]
    return made


SHOWN: Final = ("GTVn", "GTVp")
_SHARE_OF_VOXELS: Final = 1e-3
"""Largest share of the labelled voxels that may differ from the run's: another device rounds otherwise."""


class Probabilities:
    """The probabilities of a run's cases; its segmenter is loaded once, when the first is asked for.

    Parameters
    ----------
    run : the run's record.
    """

    def __init__(self, run: RunRecord) -> None:
        self._run = run
        self._loaded: tuple[Bundle, Segmenter] | None = None

    def of(self, case: ExportCase, folder: Path) -> dict[str, npt.NDArray[np.float32]]:
        """Probability of each label on the source slices.

        Parameters
        ----------
        folder : the case's, with the `prepared.nii.gz` that `aiene run --keep-prepared` leaves.

        Returns
        -------
        `GTVn` and, where the model knows primary tumours, `GTVp`: float32 (slice, row, column), 0 to 1,
        linear between the network's voxels, 0 outside what the network saw.

        Raises
        ------
        CaseError : the run kept no prepared CT, took the user's masks, or the bundle is another one now; the
            network does not give the run's labels again.
        """
        if case.maker.own_masks:
            raise CaseError(
                "the masks were the user's own, so there are no probabilities", "leave this kind out"
            )
        file = folder / "prepared.nii.gz"
        if not file.is_file():
            raise CaseError(
                "a run keeps no probabilities, and without its prepared CT they cannot be computed again",
                "run the case again with --keep-prepared",
            )
        bundle, segmenter = self._load()
        if segmenter.takes_hu:
            raise CaseError(
                "the model's segmenter takes HU, which a run does not keep, so its probabilities cannot be "
                "computed again",
                "leave this kind out",
            )
        crop = Volume(read_image(file), Grid.from_facts(case.result.facts["crop"]))
        to_native = RigidTransform.from_matrix(case.result.facts["to_native"])
        labels, found = segmenter.look(crop)
        named = bundle.card.labels
        nodes = (GTVN,) if self._run.fg_labels is None else parse_fg_labels(self._run.fg_labels)
        marked = contours(labels, nodes, primary=GTVP)
        _check_same(Volume(marked, crop.grid), to_native, case.labels)
        return {
            name: on_slices(Volume(found[named[name]], crop.grid), to_native, case.source)
            for name in SHOWN
            if name in named
        }

    def _load(self) -> tuple[Bundle, Segmenter]:
        if self._loaded is None:
            from aiene.segment.segmenter import load_bundle_segmenter

            try:
                bundle = find_bundle(self._run.model)
            except AieneError as error:
                raise CaseError(
                    said("the run's bundle {} is no longer installed", self._run.model), "install it again"
                ) from error
            if bundle.sha256 != self._run.maker.bundle_sha256:
                problem = said("the bundle {} is not the one of the run", self._run.model)
                raise CaseError(problem, "run the cases again with --overwrite")
            self._loaded = (
                bundle,
                load_bundle_segmenter(
                    bundle, operating_point=self._run.operating_point, engine=self._run.engine
                ),
            )
        return self._loaded


def on_slices(values: Volume, to_native: RigidTransform, source: SourceSeries) -> npt.NDArray[np.float32]:
    """Values of the crop on the source slices, by linear interpolation; 0 outside the crop.

    Parameters
    ----------
    values : float32 on the crop's grid in the template's space.
    to_native : takes points of that space to the patient.
    """
    result = np.zeros(source.size, dtype=np.float32)
    corners = to_native.apply(values.grid.corners())
    for k, plane in enumerate(planes(source)):
        box = _box(corners, plane, source.size)
        if box is None:
            continue
        rows, columns = np.mgrid[box]
        index = values.grid.indices(to_native.inverse().apply(plane.points(rows, columns)))
        result[k][box] = ndimage.map_coordinates(
            values.array, np.moveaxis(index, -1, 0), order=1, mode="constant", cval=0.0
        )
    return np.clip(result, 0, 1)


def _box(
    corners: npt.NDArray[np.float64], plane: Any, size: tuple[int, int, int]
) -> tuple[slice, slice] | None:
    """The rows and columns of a slice that a box of corner points can reach; None where it lies beside it."""
    off = corners - plane.origin
    heights = off @ np.cross(plane.along_row, plane.along_column)
    if heights.min() > 0 or heights.max() < 0:
        return None
    spans = []
    for along, spacing, count in (
        (plane.along_column, plane.row_spacing, size[1]),
        (plane.along_row, plane.column_spacing, size[2]),
    ):
        reach = off @ along / spacing
        low, high = max(int(np.floor(reach.min())), 0), min(int(np.ceil(reach.max())) + 1, count)
        if high <= low:
            return None
        spans.append(slice(low, high))
    return spans[0], spans[1]


def _check_same(found: Volume, to_native: RigidTransform, labels: Volume) -> None:
    """Whether labels that were found again on the crop are those of the run."""
    again = pull_labels(found, labels.grid, to_native.inverse())
    differ = np.count_nonzero(again.array != labels.array)
    if differ > _SHARE_OF_VOXELS * max(int(np.count_nonzero(labels.array)), 1):
        problem = said("computed again, the network gives {} voxels another label than in the run", differ)
        raise CaseError(problem, "run the case again with --keep-prepared --overwrite")
