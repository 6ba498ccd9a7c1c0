"""Where the source series of a run's cases are looked for: each folder's headers are read once."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Self

from aiene.errors import AieneError, CaseError
from aiene.export.run_reader import RunRecord
from aiene.export.source_matching import SourceIndex, source_index
from aiene.export.source_series import SourceSeries, grid_of_facts
from aiene.geometry.grid import Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.formats import formats
from aiene.ingest.read import opened, read_case
from aiene.results.records import CaseResult


class Sources:
    """The source series of the cases of a run; a context, since files of archives lie unpacked until it ends.

    Parameters
    ----------
    run : the run's record.
    folder : where the user says that the series lie; None is the run's input.
    """

    def __init__(self, run: RunRecord, folder: Path | None) -> None:
        self._run, self._folder = run, folder
        self._index: SourceIndex | AieneError | None = None
        self._inputs: dict[str, Case] | None = None
        self._open = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def of(self, result: CaseResult) -> SourceSeries:
        """The source series of a case.

        Raises
        ------
        InputError : it is gone, has changed, or cannot be told.
        CaseError : the input was no DICOM, and no folder was named.
        """
        kind = result.facts["input"]["kind"]
        if kind != "dicom" and self._folder is None:
            raise CaseError(
                f"the CT came from {_file_of(kind)}, and DICOM objects need the DICOM series that it "
                "was made from",
                "name the folder of that series with --source-dicom",
            )
        if self._run.pseudonymised and self._folder is None:
            raise CaseError(
                "the record of a pseudonymised run does not say where its source series lie",
                "name their folder with --source-dicom",
            )
        index = self._index_once()
        return index.find(result.facts, None if kind == "dicom" else self._ct(result))

    def _index_once(self) -> SourceIndex:
        if self._index is None:
            try:
                self._index = self._open.enter_context(source_index(self._folder or self._run.source))
            except AieneError as error:
                self._index = error
        if isinstance(self._index, AieneError):
            raise self._index
        return self._index

    def _ct(self, result: CaseResult) -> Volume | None:
        """The CT that was run, where it still lies there unchanged."""
        if self._inputs is None:
            self._inputs = _cases(self._run.source)
        case = self._inputs.get(result.case_id)
        if case is None:
            return None
        try:
            with opened(case) as lying_open:
                if content_sha256(lying_open.files) != result.facts["input"]["sha256"]:
                    return None
            volume = read_case(case).volume
        except AieneError:
            return None
        grid = grid_of_facts(result.facts["native"])  # what the run made of a header that contradicts itself
        return Volume(volume.array, grid) if volume.grid.size == grid.size else None


def _file_of(kind: str) -> str:
    """`a NIfTI file`; of a format that is not known here, its name in the record."""
    return next((f"{one.article} {one.title} file" for one in formats() if one.name == kind), kind)


def _cases(source: Path) -> dict[str, Case]:
    try:
        found, _ = find_cases(source)
    except AieneError:
        return {}
    return {case.case_id: case for case in found if isinstance(case, Case)}
