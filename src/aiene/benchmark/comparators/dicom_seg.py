"""A folder of DICOM segmentations (SEG) by case id, as `aiene export` and other tools write them.

A case's segmentations lie in `DIR/CASE_ID/...` or in `DIR/CASE_ID.dcm`; other DICOM beside them is passed
over. Each segment of a node is one node; which segments are nodes, its type or label says, or `labels` in the
configuration by segment number. Every frame is placed by its own header.
"""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pydicom

from aiene.benchmark.comparators.protocol import Adapter, Answer, CaseInput, ModelFacts, Reader, Request
from aiene.benchmark.config import GTVN, GTVP, LABEL_VALUES, LabelChoice
from aiene.benchmark.dataset import list_files
from aiene.errors import InputError, ModelError
from aiene.geometry.grid import Grid, Volume, triple
from aiene.geometry.resample import pull_labels
from aiene.ingest.dicom.header import DAMAGED, quiet
from aiene.ingest.discovery import walk
from aiene.ingest.fingerprint import glance

_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
_PRIMARY_CODES: Final = frozenset({("SCT", "372087000"), ("DCM", "130052")})  # Neoplasm, Primary; GTV Primary
_NODE_CODES: Final = frozenset({("SCT", "14799000"), ("SCT", "128462008"), ("DCM", "130051")})
"""Neoplasm, Secondary; Metastatic neoplasm; GTV Nodal."""

_PRIMARY_WORD: Final = re.compile(r"(?:^|[\W_])(?:gtv[\W_]?[pt]|primary)(?:[\W_\d]|$)", re.IGNORECASE)
_NODE_WORD: Final = re.compile(
    r"(?:^|[\W_])(?:gtv[\W_]?n|(?:lymph[\W_]?)?nodes?|ln)(?:[\W_\d]|$)", re.IGNORECASE
)
_SAME_PLACE: Final = 0.1
"""Voxels by which a segmentation may miss the CT's voxels and still be on them: headers round to 1e-3 mm."""

_AGAIN: Final = "export the segmentation again"


@dataclass(frozen=True, eq=False)
class _Read:
    labels: Volume
    nodes: Volume
    warnings: tuple[str, ...]


class SegComparator(Reader):
    """The segmentations of a folder by case id.

    Raises
    ------
    ModelError : there is no such folder, or no DICOM file in it.
    """

    def __init__(self, request: Request) -> None:
        folder = Path(request.entry.source)
        if not folder.is_dir():
            raise ModelError(folder, "no such folder", "name the folder of the segmentations")
        self._folder, self._choice, self._resample = folder, request.entry.labels, request.resample
        self._files = _files_by_case(folder)
        if not self._files:
            raise ModelError(folder, "it holds no DICOM file", "name a folder of segmentations by case id")
        self.facts = ModelFacts(
            kind="dicom-seg",
            sha256=glance([file for files in self._files.values() for file in files]),
            segments=True,
            said=("existing segmentations: their time and memory are those of reading",),
        )

    def load(self, case: CaseInput) -> _Read:
        """Read the case's segmentations onto the CT's grid."""
        name = case.case.case_id
        found = [
            (file, seg) for file in self._files.get(name, []) if (seg := _segmentation(file)) is not None
        ]
        if not found:
            problem = f"no segmentation for the case {name}"
            raise InputError(self._folder, problem, "add it; without one it counts as failed")
        like = case.truth_labels.grid
        labels, nodes = np.zeros(like.size, np.uint8), np.zeros(like.size, np.uint16)
        count, overlapping = 0, 0
        for file, seg in found:
            for label, mask in self._segments(file, seg, like):
                overlapping += int(np.count_nonzero(labels[mask]))
                labels[mask] = LABEL_VALUES[label]
                count += label == GTVN
                nodes[mask] = count if label == GTVN else 0
        warnings = (f"segments share {overlapping} voxels: the last one has them",) if overlapping else ()
        return _Read(Volume(labels, like), Volume(nodes, like), warnings)

    def answer(self, inferred: _Read) -> Answer:
        """The label map and, per segment, the nodes."""
        return Answer(inferred.labels, inferred.nodes, warnings=inferred.warnings)

    def _segments(self, file: Path, seg: Any, like: Grid) -> list[tuple[str, npt.NDArray[np.bool_]]]:
        """GTVp or GTVn and the mask on the CT's grid, of each segment that counts."""
        try:
            with quiet():
                if seg.SegmentationType != "BINARY":
                    raise InputError(file, "its segmentation is not binary", "give the binary segmentation")
                labels = {int(s.SegmentNumber): _label(file, s, self._choice) for s in seg.SegmentSequence}
                volumes = _volumes(file, seg, like)
        except DAMAGED as error:
            raise InputError(file, "it cannot be read as a segmentation", _AGAIN) from error
        found = []
        for number, volume in sorted(volumes.items()):
            label = labels.get(number)
            if label is not None:
                found.append((label, _on_grid(file, volume, like, resample=self._resample)))
        return found


def _files_by_case(folder: Path) -> dict[str, list[Path]]:
    """DICOM files by case id: the name of the folder in DIR (or DIR/cases) where they lie, else their own."""
    root = folder / "cases" if (folder / "cases").is_dir() else folder
    found: dict[str, list[Path]] = defaultdict(list)
    for file in walk(root).files:
        if file.suffix.lower() == ".dcm":
            parts = file.relative_to(root).parts
            found[parts[0] if len(parts) > 1 else file.stem].append(file)
    return dict(found)


def _takes(folder: Path) -> bool:
    """A folder with DICOM files and no label map."""
    if not folder.is_dir():
        return False
    listing = list_files(folder, "mask")
    return not listing.files and not listing.refused and bool(_files_by_case(folder))


def _segmentation(file: Path) -> Any | None:
    """The segmentation in a file; None where it holds something else."""
    try:
        with quiet():
            head = pydicom.dcmread(file, specific_tags=["SOPClassUID"])
            return pydicom.dcmread(file) if head.get("SOPClassUID") == _SEGMENTATION else None
    except DAMAGED as error:
        raise InputError(file, "it cannot be read as DICOM", "copy it again, or remove it") from error


def _label(file: Path, segment: Any, choice: LabelChoice | None) -> str | None:
    """GTVp or GTVn; None of a segment that is to be left out."""
    number = int(segment.SegmentNumber)
    if choice is not None:
        if number in choice.ignore:
            return None
        if number in (*choice.GTVp, *choice.GTVn):
            return GTVP if number in choice.GTVp else GTVN
    else:
        types = segment.get("SegmentedPropertyTypeCodeSequence") or ()
        codes = {(str(t.get("CodingSchemeDesignator")), str(t.get("CodeValue"))) for t in types}
        words = str(segment.get("SegmentLabel", ""))
        primary = bool(codes & _PRIMARY_CODES) or _PRIMARY_WORD.search(words) is not None
        node = bool(codes & _NODE_CODES) or _NODE_WORD.search(words) is not None
        if primary != node:
            return GTVP if primary else GTVN
    raise InputError(
        file,
        f"it is not stated whether its segment {number} is GTVp or GTVn",
        "name it by segment number under `labels` in the configuration (GTVp, GTVn or ignore)",
    )


def _volumes(file: Path, seg: Any, like: Grid) -> dict[int, Volume]:
    """Each segment as 0 and 1 on the segmentation's own grid."""
    shared = seg.SharedFunctionalGroupsSequence[0]
    pixels = seg.pixel_array.reshape(-1, int(seg.Rows), int(seg.Columns))
    numbers, corners, layouts = [], [], set()
    for group in seg.PerFrameFunctionalGroupsSequence:

        def item(name: str, group: Any = group) -> Any:
            return (group.get(name) or shared.get(name))[0]

        numbers.append(int(item("SegmentIdentificationSequence").ReferencedSegmentNumber))
        corners.append([float(v) for v in item("PlanePositionSequence").ImagePositionPatient])
        cosines = tuple(float(v) for v in item("PlaneOrientationSequence").ImageOrientationPatient)
        measures = item("PixelMeasuresSequence")
        spacing = tuple(float(v) for v in measures.PixelSpacing)
        between, thick = measures.get("SpacingBetweenSlices"), measures.get("SliceThickness")
        layouts.add((cosines, spacing, abs(float(between or 0)), abs(float(thick or like.spacing[0]))))
    if len(layouts) != 1 or len(numbers) != len(pixels):
        raise InputError(file, "its frames do not share one orientation and spacing", _AGAIN)
    cosines, spacing, between, thick = layouts.pop()
    along_row, down_column = np.array(cosines[:3]), np.array(cosines[3:])
    normal = np.cross(along_row, down_column)
    places = np.array(corners) @ normal
    heights = np.unique(np.round(places, 3))
    # Slices without a mark are left out as a rule, so the distance of the frames alone may be a multiple.
    step = between or (float(np.diff(heights).min()) if len(heights) > 1 else thick)
    first = int(np.argmin(places))
    slices = (places - places[first]) / step
    sideways = np.array(corners) - np.outer(places - places[first], normal) - corners[first]
    if np.abs(slices - np.rint(slices)).max() > _SAME_PLACE or np.abs(sideways).max() > _SAME_PLACE * min(
        spacing
    ):
        raise InputError(file, "its frames are not a stack of equally spaced slices", _AGAIN)
    size = (int(np.rint(slices).max()) + 1, int(seg.Rows), int(seg.Columns))
    direction = (triple(normal), triple(down_column), triple(along_row))
    grid = Grid(size, triple((step, *spacing)), triple(corners[first]), direction)
    arrays: dict[int, npt.NDArray[np.uint8]] = defaultdict(lambda: np.zeros(size, np.uint8))
    for number, place, frame in zip(numbers, np.rint(slices).astype(int), pixels, strict=True):
        arrays[number][place] |= (frame != 0).astype(np.uint8)
    return {number: Volume(array, grid) for number, array in arrays.items()}


def _on_grid(file: Path, segment: Volume, like: Grid, *, resample: bool) -> npt.NDArray[np.bool_]:
    """A segment on the CT's grid, voxel for voxel, or by nearest neighbour where that was asked for."""
    onto = like.index_map(segment.grid)
    turn = np.rint(onto[:3, :3])
    corners = np.array(list(np.ndindex(2, 2, 2))) * (np.array(segment.grid.size) - 1)
    reached = corners @ onto[:3, :3].T + onto[:3, 3]
    permutes = np.array_equal(np.abs(turn).sum(axis=0), [1, 1, 1]) and np.array_equal(
        abs(turn).sum(axis=1), [1] * 3
    )
    on_voxels = permutes and float(np.abs(reached - np.rint(reached)).max()) <= _SAME_PLACE
    if not on_voxels and not resample:
        raise InputError(
            file,
            "its segmentation does not match the CT's voxels",
            "export it on this CT, or use --resample",
        )
    mask = pull_labels(segment, like).array > 0
    lost = int(segment.array.sum()) - int(mask.sum())
    if (on_voxels and lost) or (segment.array.any() and not mask.any()):
        raise InputError(
            file, f"{lost} voxels of its segmentation lie outside the CT", "give the segmentation of this CT"
        )
    return mask


ADAPTERS = (
    Adapter("dicom-seg", "folder of DICOM SEG", SegComparator, reads_files=True, takes_folder=_takes),
)
