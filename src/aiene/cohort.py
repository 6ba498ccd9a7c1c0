"""Many cases through the road: none lost, none stopping another, taken up again where a run was killed."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiene.device import available_cores, resolve_device
from aiene.disguise import Disguised, Plain
from aiene.errors import AieneError, CaseError, OutputError, UsageError
from aiene.ingest import AffineRule, Case, Refusal, find_cases
from aiene.ingest.fingerprint import glance
from aiene.ingest.masks import mask_files
from aiene.models.bundle import Bundle, verify_bundle
from aiene.models.store import find_bundle
from aiene.nodes import check_known, parse_fg_labels
from aiene.pipeline import Networks, Preparation, Settings, finish, load_networks, load_preparation
from aiene.preparers import GetReady, Preparers
from aiene.provenance import bundle_facts, digest, environment, version
from aiene.pseudonyms import Key
from aiene.results import CaseArrays, CaseResult, RunStore

InputFormat = Literal["auto", "dicom", "nrrd", "nii", "nii.gz"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Selection:
    """Which cases of the input are meant.

    Parameters
    ----------
    format : how the CTs are stored; `auto` looks.
    series : SeriesInstanceUID to take instead of the one that the rule would choose.
    affine : which affine of a NIfTI file counts where its two differ; `auto` is the stated rule.
    limit : take the first so many cases; the others become skipped rows.
    num_parts, part_id : take every case whose place in the list is `part_id` modulo `num_parts`.
    """

    format: InputFormat = "auto"
    series: str | None = None
    limit: int | None = None
    num_parts: int = 1
    part_id: int = 0
    affine: AffineRule = "auto"

    @property
    def part(self) -> str:
        """Name of the part for `run_part-K-of-N.json`; empty where the run is whole."""
        return f"part-{self.part_id}-of-{self.num_parts}" if self.num_parts > 1 else ""


class Progress(NamedTuple):
    """One case that is done.

    Parameters
    ----------
    number, total : which case of how many.
    reused : its result was there from an earlier call.
    """

    number: int
    total: int
    result: CaseResult
    reused: bool


@dataclass(frozen=True)
class RunSummary:
    """What a run ended with.

    Parameters
    ----------
    results : of the cases of this call, in the order of the input.
    tables : path of each table that was written.
    notice : the sentence that stands wherever results of this bundle are shown.
    left_aside : what lay in the input and is no case.
    """

    results: tuple[CaseResult, ...]
    tables: dict[str, Path]
    notice: str
    left_aside: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 where every case is done, 1 where one failed."""
        return int(any(result.status == "failed" for result in self.results))


@dataclass(frozen=True)
class _Run:
    """What all cases of a run share."""

    store: RunStore
    bundle: Bundle
    settings: Settings
    shared_identity: str
    shown: Plain


def run_cohort(
    source: Path,
    out: Path,
    *,
    model: str = "default",
    device: str = "auto",
    selection: Selection | None = None,
    fg_labels: str | None = None,
    include_short_axes: bool = False,
    ene_threshold: float | None = None,
    masks: Path | None = None,
    keep_prepared: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    key: Key | None = None,
    on_case: Callable[[Progress], None] = lambda _: None,
    on_search: Callable[[int, int], None] = lambda _done, _total: None,
) -> RunSummary:
    """Run every CT of a file or folder and write what the design calls "what a run leaves".

    Parameters
    ----------
    source : a CT, or a folder of CTs.
    out : folder for the results; a run of the same settings that was ended there is taken up again.
    model : name or folder of a model bundle.
    device : see `resolve_device`.
    selection : which cases; all of them if None.
    fg_labels, include_short_axes, masks, keep_prepared : see `Settings`.
    ene_threshold : instead of the bundle's own.
    jobs : cases prepared side by side; None is one per core.
    overwrite : throw away results that lie in `out`.
    key : where given, pseudonyms under this key stand in place of case ids, names of files and folders and
        DICOM UIDs in everything that is written, logged, raised or returned, and cases are worked on in the
        order of their pseudonyms. The hash of each input's content stays.
    on_case : told of every case when it is done.
    on_search : told how many of how many files have been looked at.

    Raises
    ------
    InputError, UsageError : nothing to run, or words that do not fit.
    ModelError : the bundle cannot be used.
    OutputError : results cannot be written; what was done stays, and the next call goes on.
    """
    chosen = selection or Selection()
    shown = Plain() if key is None else Disguised(key, source, masks)
    with shown.errors():
        _check(chosen, jobs, masks)
    labels = None if fg_labels is None else parse_fg_labels(fg_labels)
    bundle = find_bundle(model)
    verify_bundle(bundle)
    if fg_labels is not None and labels is not None and masks is None:
        check_known(fg_labels, labels, bundle.card.labels)
    target = resolve_device(device)
    threshold = bundle.card.ene_threshold if ene_threshold is None else ene_threshold
    settings = Settings(threshold, fg_labels, include_short_axes, masks, keep_prepared)
    with shown.errors():
        found, left_aside = find_cases(
            source, format=chosen.format, series=chosen.series, affine=chosen.affine, on_progress=on_search
        )
    cases, left_aside = shown.cases(found), shown.texts(left_aside)
    record = shown.settings(_settings_record(source, settings, chosen, bundle, target.type))
    run = _Run(RunStore(out), bundle, settings, digest(record), shown)
    run.store.open(record, overwrite=overwrite)
    started = datetime.now(UTC)
    crew_size = jobs or available_cores()
    document: dict[str, Any] = {
        "format": 1,
        "status": "running",
        "settings": record,
        "selection": {**asdict(chosen), "series": shown.uid(chosen.series)},
        "jobs": crew_size,
        "bundle": bundle_facts(bundle),
        "environment": environment(str(target)),
        "left_aside": left_aside,
        "started": started.isoformat(timespec="seconds"),
    }
    run.store.write_run(document, part=chosen.part)
    mine = [case for place, case in enumerate(cases) if place % chosen.num_parts == chosen.part_id]
    results = _Progressing(run, mine, chosen.limit, on_case).work(crew_size, target)
    tables = run.store.write_tables(
        run.store.results({shown.name(case.case_id) for case in cases}),
        axes=include_short_axes,
        model=bundle.card.name,
        threshold=threshold,
        now=datetime.now(),
    )
    run.store.write_run({**document, **_end(results)}, part=chosen.part)
    return RunSummary(tuple(results), tables, bundle.card.notice, tuple(left_aside))


class _Progressing:
    """The cases of one call, on their way to results."""

    def __init__(
        self,
        run: _Run,
        cases: Sequence[Case | Refusal],
        limit: int | None,
        on_case: Callable[[Progress], None],
    ) -> None:
        self._run, self._cases, self._on_case = run, cases, on_case
        self._shown = run.shown
        self._within = len(cases) if limit is None else limit
        self._results: dict[str, CaseResult] = {}

    def work(self, jobs: int, device: Any) -> list[CaseResult]:
        """Settle what needs no work, then work; results in the order of the input."""
        open_cases = [
            case
            for place, case in enumerate(self._cases)
            if not self._settled(place, case) and isinstance(case, Case)
        ]
        if open_cases:
            preparation = load_preparation(self._run.bundle)
            own_masks = self._run.settings.masks is not None
            networks = load_networks(self._run.bundle, device, own_masks=own_masks)
            with Preparers(self._run.bundle, self._run.settings.masks, min(jobs, len(open_cases))) as crew:
                for case, get_ready in crew.each(open_cases, preparation):
                    self._attempt(case, get_ready, preparation, networks)
        return [self._results[self._shown.name(case.case_id)] for case in self._cases]

    def _settled(self, place: int, case: Case | Refusal) -> bool:
        """Whether a case needs no work: refused, beyond the limit, or done by an earlier call."""
        if place >= self._within:
            reason = f"beyond --limit {self._within}"
            self._keep(CaseResult(case.case_id, "skipped", reason), None)
            return True
        if isinstance(case, Refusal):
            self._keep(CaseResult(case.case_id, "failed", case.reason), None)
            return True
        before = self._run.store.finished(self._shown.name(case.case_id), self._identity(case))
        if before is None or before.status == "skipped":
            return False
        self._tell(before, reused=True)
        return True

    def _attempt(self, case: Case, get_ready: GetReady, preparation: Preparation, networks: Networks) -> None:
        """One case's road, where a failure becomes a row: the only broad handler in the package."""
        arrays: CaseArrays | None = None
        try:
            result, arrays = finish(
                get_ready(),
                networks,
                self._run.settings,
                labels=self._run.bundle.card.labels,
                midline_x=preparation.midline_x,
            )
        except AieneError as error:
            result = _failure(case, str(error))
        except MemoryError:
            lack = CaseError("not enough memory for this CT", "try --jobs 1 or a machine with more memory")
            result = _failure(case, str(lack))
        except Exception as error:
            number = len(self._results) + 1  # never the id: it may be the patient's
            log.exception("case %d of the run", number, exc_info=self._shown.error(error))
            result = _failure(case, f"internal error ({type(error).__name__}), see the log.")
        self._keep(replace(result, identity=self._identity(case)), arrays)

    def _keep(self, true_result: CaseResult, arrays: CaseArrays | None) -> None:
        result = self._shown.result(true_result)
        try:
            self._run.store.write_case(result, arrays)
        except OutputError as error:
            unwritten = len(self._cases) - len(self._results)
            problem = f"{error.problem}, and {unwritten} of {len(self._cases)} cases are not done"
            raise OutputError(error.path, problem, error.remedy) from error
        self._tell(result, reused=False)

    def _tell(self, result: CaseResult, *, reused: bool) -> None:
        self._results[result.case_id] = result
        self._on_case(Progress(len(self._results), len(self._cases), result, reused))

    def _identity(self, case: Case) -> str:
        masks = self._run.settings.masks
        own = () if masks is None else mask_files(masks, case.case_id)
        return self._shown.identity(digest([self._run.shared_identity, glance(case.files), glance(own)]))


def _failure(case: Case, reason: str) -> CaseResult:
    return CaseResult(case.case_id, "failed", reason, warnings=case.warnings, notes=case.notes)


def _check(selection: Selection, jobs: int | None, masks: Path | None) -> None:
    if jobs is not None and jobs < 1:
        raise UsageError("--jobs must be at least 1.")
    if selection.limit is not None and selection.limit < 1:
        raise UsageError("--limit must be at least 1.")
    if selection.num_parts < 1 or not 0 <= selection.part_id < selection.num_parts:
        raise UsageError("--part-id must be from 0 to --num-parts less 1.")
    if masks is not None and not masks.is_dir():
        raise UsageError(f"--masks {masks.name}: no such folder; name the folder of the masks.")


def _settings_record(
    source: Path, settings: Settings, selection: Selection, bundle: Bundle, device: str
) -> dict[str, Any]:
    """What must be the same for results to stand in one folder."""
    masks = None if settings.masks is None else str(settings.masks.resolve())
    return {
        "input": str(source.resolve()),
        **asdict(settings),
        "masks": masks,
        "series": selection.series,
        "affine": selection.affine,
        "model": bundle.card.name,
        "model_sha256": bundle.sha256,
        "device": device,
        "aiene": version(),
    }


def _end(results: Sequence[CaseResult]) -> dict[str, Any]:
    stages = sorted({stage for result in results for stage in result.seconds})
    return {
        "status": "finished",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": {s: round(sum(r.seconds.get(s, 0.0) for r in results), 3) for s in stages},
        "cases": [
            {
                "case_id": result.case_id,
                "status": result.status,
                "input_sha256": result.facts.get("input", {}).get("sha256"),
                "seconds": result.seconds,
            }
            for result in results
        ],
    }
