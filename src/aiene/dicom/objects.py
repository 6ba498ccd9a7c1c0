"""The objects of one case as files: each built, read back and compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from aiene.dicom import seg, sr
from aiene.dicom.findings import Findings, findings_of
from aiene.dicom.identity import contradictions, encoded, odd_headers
from aiene.dicom.readback import (
    check_fractional,
    check_identity,
    check_report,
    check_segmentation,
    parsed,
)
from aiene.dicom.record import ExportCase
from aiene.dicom.rows import Kind

FILES: dict[Kind, str] = {
    "dicom-seg": "seg.dcm",
    "dicom-sr": "sr.dcm",
    "rtstruct": "rtstruct.dcm",
    "secondary-capture": "capture-*.dcm",
    "dicom-seg-fractional": "seg-probabilities.dcm",
}
"""The names of each kind's files in `cases/<case_id>/dicom`."""

GiveProbabilities = Callable[[ExportCase], dict[str, npt.NDArray[np.float32]]]


@dataclass
class Objects:
    """The files of a case, by name; filled while they are made.

    Parameters
    ----------
    case, found : what they show.
    files : content by file name.
    warnings : what the user should look at.
    """

    case: ExportCase
    found: Findings
    files: dict[str, bytes] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def make_objects(case: ExportCase, kinds: Sequence[Kind], probabilities: GiveProbabilities) -> Objects:
    """Every object of some kinds, read back and compared.

    Parameters
    ----------
    kinds : a report brings the segmentation that it refers to.
    probabilities : gives the network's probabilities on the source slices; asked only where needed.

    Raises
    ------
    CaseError : an object cannot be made, or differs when it is read back.
    MissingExtraError : highdicom is not installed.
    """
    found = findings_of(case)
    made = Objects(
        case,
        found,
        warnings=[
            *case.source.warnings,
            *contradictions(case.source),
            *odd_headers(case.source.datasets[0]),
            *found.warnings,
        ],
    )
    if case.source.is_tilted:
        made.warnings.append(
            "the gantry was tilted: the objects lie on the source's own slices, which are shifted against "
            "each other, and a viewer that stacks them upright shows them shifted"
        )
    segmentation = None
    if {"dicom-seg", "dicom-sr"} & set(kinds) and found.names:
        segmentation = seg.build(case, found)
        _add(made, "dicom-seg", segmentation, lambda content: check_segmentation(content, case, found))
    if "dicom-sr" in kinds:
        report = sr.build(case, found, segmentation)
        _add(made, "dicom-sr", report, lambda content: check_report(content, case, found, segmentation))
    if "dicom-seg-fractional" in kinds:
        _add_fractional(made, probabilities)
    if found.names:
        shown = _shown(case, found)
        if "rtstruct" in kinds:
            _add_structures(made, shown)
        if "secondary-capture" in kinds:
            _add_captures(made, shown)
    return made


def _add(made: Objects, kind: Kind, dataset: Dataset, check: Callable[[bytes], None]) -> None:
    content = encoded(dataset)
    check(content)
    made.files[FILES[kind]] = content


def _add_fractional(made: Objects, probabilities: GiveProbabilities) -> None:
    values = probabilities(made.case)
    stored = {name: seg.quantised(value) for name, value in values.items()}
    if any(value.any() for value in stored.values()):
        dataset = seg.build_fractional(made.case, values)
        _add(made, "dicom-seg-fractional", dataset, lambda c: check_fractional(c, made.case, stored))


def _add_structures(made: Objects, shown: ExportCase) -> None:
    from aiene.dicom import rtstruct
    from aiene.dicom.rtstruct_readback import check_rtstruct

    _add(made, "rtstruct", rtstruct.build(shown), lambda content: check_rtstruct(content, shown, made.found))


def _add_captures(made: Objects, shown: ExportCase) -> None:
    from aiene.dicom import secondary_capture

    pages: list[Any] = secondary_capture.build(shown)
    for number, page in enumerate(pages, start=1):
        content = encoded(page)
        check_identity(parsed(content), shown)
        made.files[f"capture-{number:02d}.dcm"] = content


def _shown(case: ExportCase, found: Findings) -> ExportCase:
    """The case without the nodes that hold no voxel."""
    return replace(case, result=replace(case.result, nodes=found.present))
