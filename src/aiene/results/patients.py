"""Whose CT each result is, and which of a patient's CTs stands for the patient."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from aiene.results.records import CaseResult


class Person(NamedTuple):
    """Whose CT a case is; see `ingest.identity.group_by_patient`.

    Parameters
    ----------
    case_id, patient : as they may be shown.
    date : of the CT, YYYY-MM-DD; empty where unknown or hidden.
    counts : it is the CT of its patient that counts.
    """

    case_id: str
    patient: str
    date: str
    counts: bool

    def of(self, result: CaseResult) -> CaseResult:
        """A result of this case with its patient."""
        return replace(result, patient=self.patient, date=self.date, counts=self.counts)


def by_patient(results: Iterable[CaseResult]) -> list[tuple[CaseResult, tuple[CaseResult, ...]]]:
    """Of every patient, in byte order of their names, the result that counts and the others.

    A result without a patient, as older runs left them, is a patient of its own.
    """
    groups: dict[str, list[CaseResult]] = defaultdict(list)
    for result in results:
        groups[result.patient or result.case_id].append(result)
    pairs = []
    for _, group in sorted(groups.items(), key=lambda pair: pair[0].encode("utf-8", "surrogateescape")):
        ordered = sorted(group, key=lambda r: (r.date, r.case_id))
        chosen = next((r for r in ordered if r.counts), ordered[0])
        pairs.append((chosen, tuple(r for r in ordered if r is not chosen)))
    return pairs


def same_ct_told(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The results, with a warning where several cases hold the very same voxels: a CT that counts twice."""
    alike: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if voxels := result.facts.get("input", {}).get("voxels_sha256"):
            alike[voxels].append(result.case_id)
    told = []
    for result in results:
        twins = alike.get(result.facts.get("input", {}).get("voxels_sha256"), [])
        others = [case_id for case_id in twins if case_id != result.case_id]
        if others:
            warning = f"the same CT, voxel for voxel, is also the case {', '.join(others)}"
            result = replace(result, warnings=(*result.warnings, warning))
        told.append(result)
    return told
