"""Export of a run as DICOM objects: case by case, each whole or not at all, one row of the table for each.

Each object is built, read back and compared before its file counts as done. The tables say what every case
ended with.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from aiene.csv_tables import rows_bytes
from aiene.errors import (
    NOT_SHOWN,
    AieneError,
    InputError,
    MissingExtraError,
    OutputError,
    Said,
    UsageError,
    attempt,
    file_name,
    joined,
    ours,
    said,
)
from aiene.export import rtstruct, secondary_capture, seg, sr
from aiene.export.case import ExportCase, Findings, findings_of
from aiene.export.identity import contradictions, encoded
from aiene.export.seg import Probabilities
from aiene.export.source_lookup import NeverDicomError, Sources
from aiene.export.verification import (
    check_fractional,
    check_identity,
    check_report,
    check_rtstruct,
    check_segmentation,
    parsed,
)
from aiene.finished_runs import RunRecord, cases_of, read_labels, read_run
from aiene.geometry.grid import Grid
from aiene.ingest.dicom.header import quiet
from aiene.ingest.dicom.header_values import odd_headers
from aiene.results.atomic import elsewhere, make_folder, read_json, writing
from aiene.results.ownership import Owned
from aiene.results.records import CaseResult
from aiene.results.reviews import DONE, ReviewStore, Saved, one_reader
from aiene.results.store import RunStore

Kind = Literal["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture", "dicom-seg-fractional"]
KINDS: tuple[Kind, ...] = ("dicom-seg", "dicom-sr", "rtstruct", "secondary-capture", "dicom-seg-fractional")

CSV = "export.csv"
JSON = "export.json"

FILES: dict[Kind, str] = {
    "dicom-seg": "seg.dcm",
    "dicom-sr": "sr.dcm",
    "rtstruct": "rtstruct.dcm",
    "secondary-capture": "capture-*.dcm",
    "dicom-seg-fractional": "seg-probabilities.dcm",
}
"""The names of each kind's files in `cases/<case_id>/dicom`."""

GiveProbabilities = Callable[[ExportCase], dict[str, npt.NDArray[np.float32]]]
FOLDER = "dicom"
"""The objects' folder in a case's."""

_ELSEWHERE = (
    "correct that, or copy the whole folder of the run to a place where you can write, and export there"
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ExportRow:
    """What became of one case.

    Parameters
    ----------
    status : `ok`, `failed`, or `skipped` where the run itself gave no result for the case, or where its CT
        was no DICOM and nobody said where the series lies that it was made from.
    reason : one sentence where it is not `ok`.
    files : written or confirmed, by their path below the run's folder.
    warnings : what the user should look at.
    seconds : wall time.
    identity : of the result that was exported.
    dated : date of its objects.
    """

    case_id: str
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    identity: str = field(default="", repr=False)
    dated: str = ""


class ExportProgress(NamedTuple):
    """One case that is done: which of how many."""

    number: int
    total: int
    row: ExportRow


@dataclass(frozen=True)
class ExportSummary:
    """What an export ended with.

    Parameters
    ----------
    rows : of every case of the run, in byte order of their ids.
    kinds : what was asked for.
    notice : the bundle's sentence, to stand wherever its results are shown.
    tables : path of each table that was written.
    """

    rows: tuple[ExportRow, ...]
    kinds: tuple[Kind, ...]
    notice: str
    tables: dict[str, Path] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where every case is exported that could be; 1 where one failed, or none could be."""
        statuses = {row.status for row in self.rows}
        return int("failed" in statuses or statuses == {"skipped"})

    @property
    def counts(self) -> dict[str, int]:
        """How many cases of each status."""
        every = [row.status for row in self.rows]
        return {status: every.count(status) for status in ("ok", "failed", "skipped") if status in every}


def write_tables(
    out: Path, rows: Sequence[ExportRow], kinds: Sequence[Kind], notice: str, *, home: Path | None = None
) -> dict[str, Path]:
    """Write `export.csv` and `export.json`.

    Parameters
    ----------
    home : folder below `out` for them; None is `out` itself.

    Raises
    ------
    OutputError : they cannot be written.
    """
    header = ["case_id", "status", "reason", "files", "warnings", "seconds"]
    table = [
        [r.case_id, r.status, r.reason, " | ".join(r.files), " | ".join(r.warnings), r.seconds] for r in rows
    ]
    owned = Owned(out)
    place = out if home is None else home
    owned.write(place / CSV, rows_bytes([header, *table]))
    content = {"format": 1, "kinds": list(kinds), "notice": notice, "cases": [asdict(row) for row in rows]}
    owned.write_json(place / JSON, content)
    return {"csv": place / CSV, "json": place / JSON}


def earlier_dates(out: Path) -> dict[str, datetime]:
    """The dates that an earlier export gave to the objects of each result, by the result's identity.

    A run that is taken up again has a later start; what was exported before keeps its date, and so its bytes.
    """
    try:
        return {
            case["identity"]: datetime.fromisoformat(case["dated"])
            for case in (read_json(out / JSON) or {})["cases"]
            if case["identity"] and case["dated"]
        }
    except (ValueError, KeyError, TypeError):
        return {}


# Objects of one case


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
    warnings: list[Said] = field(default_factory=list)


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
            said(
                "the gantry was tilted: the objects lie on the source's own slices, which are shifted "
                "against each other, and a viewer that stacks them upright shows them sheared"
            )
        )
    segmentation = None
    if {"dicom-seg", "dicom-sr"} & set(kinds) and found.names:
        segmentation = seg.build(case, found)
        _add(made, "dicom-seg", segmentation, lambda content: check_segmentation(content, case, found))
    if "dicom-sr" in kinds:
        report = sr.build(case, found, segmentation)
        _add(made, "dicom-sr", report, lambda content: check_report(content, case, found, segmentation))
    if "dicom-seg-fractional" in kinds:
        values = probabilities(case)
        stored = {name: seg.quantised(value) for name, value in values.items()}
        if any(value.any() for value in stored.values()):
            dataset = seg.build_fractional(case, values)
            _add(made, "dicom-seg-fractional", dataset, lambda c: check_fractional(c, case, stored))
    if found.names:
        shown = replace(case, result=replace(case.result, nodes=found.present))  # those that hold a voxel
        if "rtstruct" in kinds:
            structures = rtstruct.build(shown)
            _add(made, "rtstruct", structures, lambda content: check_rtstruct(content, shown, found))
        if "secondary-capture" in kinds:
            for number, page in enumerate(secondary_capture.build(shown), start=1):
                content = encoded(page)
                check_identity(parsed(content), shown)
                made.files[f"capture-{number:02d}.dcm"] = content
    return made


def _add(made: Objects, kind: Kind, dataset: Dataset, check: Callable[[bytes], None]) -> None:
    content = encoded(dataset)
    check(content)
    made.files[FILES[kind]] = content


@dataclass(frozen=True)
class _Export:
    out: Path
    run: RunRecord
    kinds: tuple[Kind, ...]
    sources: Sources
    probabilities: Probabilities
    dates: dict[str, datetime]
    overwrite: bool
    owned: Owned
    reviewed: ReviewStore | None = None


def export_run(
    out: Path,
    kinds: Sequence[str],
    *,
    source_dicom: Path | None = None,
    on_case: Callable[[ExportProgress], None] = lambda _: None,
    overwrite: bool = False,
    reviewed: bool = False,
    reader: str | None = None,
) -> ExportSummary:
    """Write the results of a run as DICOM objects under `cases/<case_id>/dicom`, and tables of what was done.

    Each object is read back and compared before it counts as done. An export that is repeated gives the same
    bytes.

    Parameters
    ----------
    out : the folder that `aiene run` filled.
    kinds : of `KINDS`; a report (`dicom-sr`) brings the segmentation that it refers to.
    source_dicom : where the source series lie, if not in the run's input any more, or if that was no DICOM.
    on_case : told of every case when it is done.
    overwrite : replace objects that lie there and differ.
    reviewed, reader : what a reader (the only one, if None) has accepted or corrected in place of the model's
        answer; its objects lie under `review/<reader>/dicom/<case_id>`.

    Raises
    ------
    UsageError : no such kind, no run lies in `out`, or a table of the user's lies in the place of ours.
    MissingExtraError : highdicom is not installed.
    OutputError : objects cannot be written; those that were stay.
    """
    chosen = parse_kinds(kinds)
    if source_dicom is not None and not source_dicom.exists():
        template = "--source-dicom {}: no such folder; name that of the source series."
        raise UsageError(said(template, file_name(source_dicom)))
    run = read_run(out)
    work = ReviewStore(out, one_reader(out, reader).name) if reviewed else None
    home = out if work is None else work.root
    owned = Owned(out)
    owned.check(*(f"{(home / name).relative_to(out).as_posix()}" for name in (CSV, JSON)))
    every = list(cases_of(out))
    rows: list[ExportRow] = []
    with elsewhere(_ELSEWHERE), Sources(run, source_dicom) as sources:
        dates = earlier_dates(home)
        export = _Export(out, run, chosen, sources, Probabilities(run), dates, overwrite, owned, work)
        for case in every:
            rows.append(_row(export, case))
            on_case(ExportProgress(len(rows), len(every), rows[-1]))
        tables = write_tables(out, rows, chosen, run.maker.notice, home=home)
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
        raise UsageError(
            said(
                "--to {}: give some of {}.",
                joined(", ", unknown) if unknown else ours("(nothing)"),
                joined(", ", map(ours, KINDS)),
            )
        )
    return tuple(kind for kind in KINDS if kind in wanted)


def _row(export: _Export, case: CaseResult | InputError) -> ExportRow:
    """One case, exported or with the reason why not: a failure becomes a row here."""
    if isinstance(case, InputError):
        return ExportRow(case.path.name, "failed", str(case))
    if case.status not in ("ok", "no_nodes"):
        return ExportRow(case.case_id, "skipped", said("the run has no result for it: {}", case.reason))
    start = time.perf_counter()
    saved = None
    if export.reviewed is not None:
        saved = export.reviewed.latest(case.case_id)
        if saved is None or saved.version.status not in DONE:
            return ExportRow(case.case_id, "skipped", "it has not been accepted or corrected yet")
    dated = export.dates.get(case.identity, export.run.maker.started)
    if saved is not None:
        dated = datetime.fromisoformat(saved.version.time)
    row = ExportRow(case.case_id, "ok", identity=case.identity, dated=dated.isoformat())

    def work() -> ExportRow:
        with quiet(), _unlogged():
            files, warnings = _export_case(export, case, dated, saved)
        return replace(row, files=files, warnings=warnings)

    def failed(error: AieneError) -> ExportRow:
        if isinstance(error, OutputError | MissingExtraError):
            raise error
        status: Literal["failed", "skipped"] = "skipped" if isinstance(error, NeverDicomError) else "failed"
        return replace(row, status=status, reason=_sentence(export, error))

    done = attempt(
        work,
        failed,
        log=log,
        what="a case of the export",
        shown=partial(_logged, export),
        remedy="try a machine with more memory",
    )
    return replace(done, seconds=round(time.perf_counter() - start, 3))


def _sentence(export: _Export, error: AieneError) -> str:
    """What to say of an error; of a pseudonymised run without the name of a file of its input."""
    if not isinstance(error, InputError):
        return _shown_of(export, error.told)
    if not export.run.pseudonymised or error.path.resolve().is_relative_to(export.out.resolve()):
        return str(error)
    template = "a file or folder of the source: {}; {}."
    return _shown_of(export, said(template, ours(error.problem), ours(error.remedy)))


def _shown_of(export: _Export, told: Said) -> str:
    """A sentence; of a pseudonymised run without names, since nobody gives its key."""
    return told.without_names(lambda name: NOT_SHOWN) if export.run.pseudonymised else told


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
    export: _Export, result: CaseResult, dated: datetime, saved: Saved | None = None
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Make and write the objects of a case; gives their paths below `out`, and warnings."""
    folder = RunStore(export.out).case_folder(result.case_id)
    place = folder / FOLDER
    if saved is None or export.reviewed is None:
        case = load_case(folder, result, export, dated)
    else:
        place = export.reviewed.root / FOLDER / result.case_id
        case = load_case(saved.folder, saved.result, export, dated)
        by_hand = case.maker.own_masks or saved.version.edited
        case = replace(case, maker=replace(case.maker, own_masks=by_hand))
    made = make_objects(case, export.kinds, lambda c: export.probabilities.of(c, folder))
    kinds = set(export.kinds) | ({"dicom-seg"} if "dicom-sr" in export.kinds else set())
    patterns = [FILES[kind] for kind in KINDS if kind in kinds]
    _put(export.owned, place, made.files, patterns, export.overwrite)
    below = place.relative_to(export.out).as_posix()
    return tuple(f"{below}/{name}" for name in sorted(made.files)), tuple(
        _shown_of(export, warning) for warning in made.warnings
    )


def load_case(folder: Path, result: CaseResult, export: _Export, dated: datetime) -> ExportCase:
    """A case with its label maps and its source series.

    Raises
    ------
    InputError : a label map or the source series is gone or has changed.
    CaseError : the input was no DICOM, and no folder of the source series was named.
    """
    source = export.sources.of(result)
    grid = Grid.from_facts(result.facts["native"])
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
            said("{} exists from another result or version; replace it with --overwrite.", sorted(changed)[0])
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
