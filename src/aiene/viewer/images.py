"""The CTs of a run found again: by id and content, or by content alone where they were moved."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from aiene.errors import AieneError
from aiene.export.case import grid_of_facts
from aiene.finished_runs import RunRecord
from aiene.geometry.grid import Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.read import read_case
from aiene.results.records import CaseResult

GONE = (
    "The CT is no longer where the run found it, so its slices cannot be shown; name its folder with "
    "--images."
)
CHANGED = (
    "The CT there is not the one that was run, so its slices are not shown; name the folder of the "
    "right one with --images."
)
HIDDEN = (
    "A pseudonymised run does not record where its CTs are, so no slices can be shown; name their folder "
    "with --images."
)
UNREADABLE = "The CT can no longer be read, so its slices cannot be shown."


class Images:
    """The CTs of the cases of a run.

    Parameters
    ----------
    cases : of the input, or of the folder that the user named.
    by_content : a case of another id is taken too, where its content is the one that was run.
    hidden : the run does not say where its input lies, and no folder was named.
    """

    def __init__(self, cases: Sequence[Case], *, by_content: bool = False, hidden: bool = False) -> None:
        self.cases, self.by_content, self.hidden = tuple(cases), by_content, hidden
        self._by_id = {case.case_id: case for case in cases}
        self._hashes: dict[str, str | None] = {}

    @classmethod
    def of_run(cls, run: RunRecord, folder: Path | None = None) -> Self:
        """The CTs of a run where they were, or in the folder where they lie now."""
        if run.pseudonymised and folder is None:
            return cls((), hidden=True)
        try:
            found, _ = find_cases(folder or run.source, series=run.series, affine=run.affine)
        except AieneError:
            found = []
        return cls([case for case in found if isinstance(case, Case)], by_content=folder is not None)

    def ct(self, result: CaseResult) -> Volume | str:
        """The CT of a case in HU on its native grid, or the sentence that says why it cannot be shown."""
        if self.hidden:
            return HIDDEN
        case = self.case(result)
        if isinstance(case, str):
            return case
        grid = grid_of_facts(result.facts["native"])  # what the run made of a header that contradicts itself
        try:
            volume = read_case(case).volume
        except AieneError:
            return UNREADABLE
        return Volume(volume.array, grid) if volume.grid.size == grid.size else CHANGED

    def case(self, result: CaseResult) -> Case | str:
        """The input of a case: of its id and content, else of its content alone; or why there is none."""
        wanted = result.facts["input"]["sha256"]
        same = self._by_id.get(result.case_id)
        if same is not None and self._sha256(same) == wanted:
            return same
        if self.by_content:
            for case in self.cases:
                if self._sha256(case) == wanted:
                    return case
        return GONE if same is None else CHANGED

    def _sha256(self, case: Case) -> str | None:
        if case.case_id not in self._hashes:
            try:
                self._hashes[case.case_id] = content_sha256(case.files)
            except (AieneError, OSError):
                self._hashes[case.case_id] = None
        return self._hashes[case.case_id]
