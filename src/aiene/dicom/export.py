"""A run's results as DICOM objects: case by case, whole or not at all, one row for each."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from aiene.dicom.find import grid_of_facts
from aiene.dicom.load import RunRecord, cases_of, read_labels, read_run
from aiene.dicom.objects import FILES, make_objects
from aiene.dicom.probabilities import Probabilities
from aiene.dicom.record import ExportCase
from aiene.dicom.rows import (
    CSV,
    JSON,
    KINDS,
    ExportProgress,
    ExportRow,
    ExportSummary,
    Kind,
    earlier_dates,
    write_tables,
)
from aiene.dicom.sources import Sources
from aiene.errors import AieneError, CaseError, InputError, MissingExtraError, OutputError, UsageError
from aiene.ingest.dicom.damage import quiet
from aiene.results.atomic import elsewhere, make_folder, writing
from aiene.results.ownership import Owned
from aiene.results.records import CaseResult
from aiene.results.store import RunStore

FOLDER = "dicom"
"""The objects' folder in a case's."""

_ELSEWHERE = "mend that, or copy the whole folder of the run to where you can write, and export there"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Export:
    """What all cases of an export share."""

    out: Path
    run: RunRecord
    kinds: tuple[Kind, ...]
    sources: Sources
    probabilities: Probabilities
    dates: dict[str, datetime]
    overwrite: bool
    owned: Owned


def export_run(
    out: Path,
    kinds: Sequence[str],
    *,
    source_dicom: Path | None = None,
    on_case: Callable[[ExportProgress], None] = lambda _: None,
    overwrite: bool = False,
) -> ExportSummary:
    """Write the results of a run as DICOM objects under `cases/<case_id>/dicom`, and tables of what was done.

    Each object is read back and compared before it counts as done. An export that is repeated gives the same
    bytes.

    Parameters
    ----------
    out : the folder that `aiene run` filled.
    kinds : of `rows.KINDS`; a report (`dicom-sr`) brings the segmentation that it refers to.
    source_dicom : where the source series lie, if not in the run's input any more, or if that was no DICOM.
    on_case : told of every case when it is done.
    overwrite : replace objects that lie there and differ.

    Raises
    ------
    UsageError : no such kind, no run lies in `out`, or a table of the user's lies in the place of ours.
    MissingExtraError : highdicom is not installed.
    OutputError : objects cannot be written; those that were stay.
    """
    chosen = parse_kinds(kinds)
    if source_dicom is not None and not source_dicom.exists():
        raise UsageError(
            f"--source-dicom {source_dicom.name}: no such folder; name that of the source series."
        )
    run = read_run(out)
    owned = Owned(out)
    owned.check(CSV, JSON)
    every = list(cases_of(out))
    rows: list[ExportRow] = []
    with elsewhere(_ELSEWHERE), Sources(run, source_dicom) as sources:
        export = _Export(out, run, chosen, sources, Probabilities(run), earlier_dates(out), overwrite, owned)
        for case in every:
            rows.append(_row(export, case))
            on_case(ExportProgress(len(rows), len(every), rows[-1]))
        tables = write_tables(out, rows, chosen, run.maker.notice)
    return ExportSummary(tuple(rows), chosen, run.maker.notice, tables)


def parse_kinds(words: Sequence[str]) -> tuple[Kind, ...]:
    """The kinds behind `--to`, in the order in which they are made.

    Raises
    ------
    UsageError : none, or one that there is not.
    """
    wanted = {part.strip().lower() for word in words for part in word.split(",") if part.strip()}
    unknown = sorted(wanted - set(KINDS))
    if unknown or not wanted:
        raise UsageError(f"--to {', '.join(unknown) or '(nothing)'}: give some of {', '.join(KINDS)}.")
    return tuple(kind for kind in KINDS if kind in wanted)


def _row(export: _Export, case: CaseResult | InputError) -> ExportRow:
    """One case, exported or with the reason why not: a failure becomes a row here."""
    if isinstance(case, InputError):
        return ExportRow(case.path.name, "failed", str(case))
    if case.status not in ("ok", "no_nodes"):
        return ExportRow(case.case_id, "skipped", f"the run has no result for it: {case.reason}")
    start = time.perf_counter()
    dated = export.dates.get(case.identity, export.run.maker.started)
    row = ExportRow(case.case_id, "ok", identity=case.identity, dated=dated.isoformat())
    try:
        with quiet(), _unlogged():
            files, warnings = _export_case(export, case, dated)
        row = replace(row, files=files, warnings=warnings)
    except (OutputError, MissingExtraError):
        raise
    except AieneError as error:
        row = replace(row, status="failed", reason=_sentence(export, error))
    except MemoryError:
        lack = CaseError("not enough memory for this case", "try a machine with more memory")
        row = replace(row, status="failed", reason=str(lack))
    except Exception as error:
        log.exception("a case of the export", exc_info=_logged(export, error))  # never the patient's id
        row = replace(row, status="failed", reason=f"internal error ({type(error).__name__}), see the log.")
    return replace(row, seconds=round(time.perf_counter() - start, 3))


def _sentence(export: _Export, error: AieneError) -> str:
    """What to say of an error; of a pseudonymised run without the name of a file of its input."""
    if not (export.run.pseudonymised and isinstance(error, InputError)):
        return str(error)
    if error.path.resolve().is_relative_to(export.out.resolve()):
        return str(error)
    return f"a file or folder of the source: {error.problem}; {error.remedy}."


def _logged(export: _Export, error: Exception) -> Exception:
    """An unforeseen error for the log; of a pseudonymised run without its words, which may hold a path."""
    if not export.run.pseudonymised:
        return error
    return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)


@contextmanager
def _unlogged() -> Iterator[None]:
    """Without what highdicom logs of odd values, which could show a person's; `quiet` silences pydicom."""
    logger = logging.getLogger("highdicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _export_case(
    export: _Export, result: CaseResult, dated: datetime
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make and write the objects of a case; gives their paths below `out`, and warnings."""
    folder = RunStore(export.out).case_folder(result.case_id)
    case = load_case(folder, result, export, dated)
    made = make_objects(case, export.kinds, lambda c: export.probabilities.of(c, folder))
    kinds = set(export.kinds) | ({"dicom-seg"} if "dicom-sr" in export.kinds else set())
    patterns = [FILES[kind] for kind in KINDS if kind in kinds]
    _put(export.owned, folder / FOLDER, made.files, patterns, export.overwrite)
    place = (folder / FOLDER).relative_to(export.out).as_posix()
    return tuple(f"{place}/{name}" for name in sorted(made.files)), tuple(made.warnings)


def load_case(folder: Path, result: CaseResult, export: _Export, dated: datetime) -> ExportCase:
    """A case with its label maps and its source series.

    Raises
    ------
    InputError : a label map or the source series is gone or has changed.
    CaseError : the input was no DICOM, and no folder of the source series was named.
    """
    source = export.sources.of(result)
    grid = grid_of_facts(result.facts["native"])
    return ExportCase(
        result=result,
        nodes=read_labels(folder / "nodes.nii.gz", grid, np.uint16),
        labels=read_labels(folder / "labels.nii.gz", grid, np.uint8),
        source=source,
        maker=replace(export.run.maker, started=dated),
    )


def _put(
    owned: Owned, folder: Path, files: dict[str, bytes], patterns: Sequence[str], overwrite: bool
) -> None:
    """Put files in place; those of the same kinds that an earlier export left and this one has not, go.

    They hold names of patients, and so are for their owner's eyes alone.

    Raises
    ------
    OutputError : they cannot be written.
    UsageError : a file that lies there differs, and `overwrite` is not given, or it is not ours.
    """
    there = {path.name: path for pattern in patterns for path in folder.glob(pattern)}
    with writing(folder):
        changed = [n for n, path in there.items() if n not in files or path.read_bytes() != files[n]]
    if changed and not overwrite:
        raise UsageError(
            f"{sorted(changed)[0]} lies there from another result or version; replace it with --overwrite."
        )
    strangers = [there[name] for name in changed if not owned.wrote(there[name])]
    owned.check(*(path.relative_to(owned.root).as_posix() for path in strangers))
    if files:
        make_folder(folder, private=True)
    for name in changed:
        if name not in files:
            with writing(there[name]):
                there[name].unlink()
    for name, content in files.items():
        if name not in there or name in changed:
            owned.write(folder / name, content, private=True, over_changed=overwrite)
