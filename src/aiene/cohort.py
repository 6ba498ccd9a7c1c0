"""Many cases through the road: none lost, none stopping another, taken up again where a run was killed."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from aiene import case_worker, cluster
from aiene.case_worker import CaseWorkers, ClusterWork, GetPreprocessed, Made, Preparers, cases_at_once, load
from aiene.deidentify import Disguised, Key, Plain
from aiene.device import device_name, resolve_device
from aiene.errors import AieneError, OutputError, UsageError, attempt, file_name, ours, said
from aiene.hashing import digest, joined_sha256
from aiene.ingest.case import AffineRule, Case, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256, glance
from aiene.ingest.formats import InputFormat
from aiene.ingest.identity import Timepoint, parse_id_rule
from aiene.ingest.masks import own_mask_files
from aiene.models.bundle import Bundle, OperatingPoint, find_bundle, verify_bundle
from aiene.nodes.node import CountingRule
from aiene.object_store import AtHand
from aiene.pipeline import OnProgress, Settings, by_case, infer_case, settings_for
from aiene.provenance import bundle_facts, environment, settings_record
from aiene.results.atomic import concerns_one_file
from aiene.results.ownership import refuse_files_within, refuse_overlap
from aiene.results.records import CaseArrays, CaseResult, Person, same_ct_told, totals
from aiene.results.store import CaseFiles, RunStore

if TYPE_CHECKING:
    from aiene.preprocess.profile import Grade as RegistrationGrade
    from aiene.segment.engines import Grade

log = logging.getLogger(__name__)

_TABLE_EVERY_S = 5.0
_TABLE_SHARE = 20.0  # while a run goes on, `cases.csv` takes at most a twentieth of its time


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
    id_from : what the cases are called, as for `ingest.identity.parse_id_rule`; None: after their places.
    timepoint : which CT of a patient counts; see `ingest.identity.group_by_patient`.
    """

    format: InputFormat = "auto"
    series: str | None = None
    limit: int | None = None
    num_parts: int = 1
    part_id: int = 0
    affine: AffineRule = "auto"
    id_from: str | None = None
    timepoint: Timepoint = "auto"

    def check(self) -> None:
        """Refuse a share of the cases that there is not.

        Raises
        ------
        UsageError : so it is.
        """
        if self.limit is not None and self.limit < 1:
            raise UsageError("--limit must be at least 1.")
        if self.num_parts < 1 or not 0 <= self.part_id < self.num_parts:
            raise UsageError("--part-id must be from 0 to --num-parts less 1.")

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
    device : where the networks run, such as `cpu` or `cuda:0`.
    """

    number: int
    total: int
    result: CaseResult
    reused: bool
    device: str


@dataclass(frozen=True)
class RunSummary:
    """What a run ended with.

    Parameters
    ----------
    results : of the cases of this call, in the order of the input.
    tables : path of each table that was written.
    notice : the sentence that stands wherever results of this bundle are shown.
    left_aside : what lay in the input and is no case.
    rule : which nodes counted.
    """

    results: tuple[CaseResult, ...]
    tables: dict[str, Path]
    notice: str
    left_aside: tuple[str, ...]
    rule: CountingRule

    @property
    def exit_code(self) -> int:
        """0 where every case is done, 1 where one failed."""
        return int(any(result.status == "failed" for result in self.results))


@dataclass(frozen=True)
class _Run:
    store: RunStore
    bundle: Bundle
    settings: Settings
    shared_identity: str
    shown: Plain
    check_content: bool
    parquet: bool
    supply: AtHand


def run_cohort(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    model: str | os.PathLike[str] = "default",
    device: str = "auto",
    selection: Selection | None = None,
    fg_labels: str | None = None,
    include_short_axes: bool = False,
    ene_threshold: float | None = None,
    pos_from: float | None = None,
    operating_point: OperatingPoint | None = None,
    engine: Grade = "exact",
    registration: RegistrationGrade = "exact",
    masks: str | os.PathLike[str] | None = None,
    keep_prepared: bool = False,
    jobs: int | None = None,
    overwrite: bool = False,
    check_content: bool = False,
    scheduler: str | None = None,
    key: Key | None = None,
    supply: AtHand = AtHand(),  # noqa: B008 (it holds nothing)
    parquet: bool = False,
    on_case: Callable[[Progress], None] = lambda _: None,
    on_search: Callable[[int, int], None] = lambda _done, _total: None,
    progress: bool | OnProgress = False,
) -> RunSummary:
    """Run every CT of a file or folder and write what the design calls "what a run leaves".

    Parameters
    ----------
    source : a CT, a folder of CTs, or an input list (`ingest.input_list`).
    out : folder for the results; a run of the same settings that was ended there is taken up again.
    model, device : name or folder of a model bundle; see `resolve_device`.
    selection : which cases; all of them if None.
    fg_labels, include_short_axes, masks, keep_prepared : see `Settings`.
    ene_threshold, pos_from : instead of the bundle's own (`CountingRule`).
    operating_point : one of the bundle's; None: as its weights are.
    engine : `exact`, or `fast` for label maps of a quicker arithmetic; see `segment.engines`.
    registration : `exact`, or `fast` instead of the published one; see `preprocess.profile`.
    jobs : cases worked on side by side; None is one per core, as far as the memory reaches.
    overwrite : throw away the results of earlier runs that lie in `out`, and nothing else.
    check_content : take a result up again only after every byte of its input was compared. Otherwise name,
        size and both times of a file (its own, and the system's, which no user sets) are trusted where all
        are as before, and the bytes compared where the system's alone is another.
    scheduler : whose workers do the cases, see `cluster.connected`; None is this machine.
    key : where given, pseudonyms under this key stand in place of case ids, names of files and folders and
        DICOM UIDs in everything that is written, logged, raised or returned, and cases are worked on in the
        order of their pseudonyms. The hash of each input's content stays.
    supply : brings the files of each case to `source`, where the input lies in an object store.
    parquet : write the tables as Parquet too, at the end.
    on_case, on_search : told of every case when it is done; how many of how many files were looked at.
    progress : True shows a bar (tqdm); a function `(done, total, words)` is told of each case.

    Raises
    ------
    InputError, UsageError : nothing to run, words that do not fit, `out` overlaps an input, or a file of the
        user's in it is in the way.
    ModelError : the bundle cannot be used.
    OutputError : results cannot be written; what was done stays, and the next call goes on.
    """
    source, out, masks = Path(source), Path(out), None if masks is None else Path(masks)
    chosen = selection or Selection()
    shown = Plain() if key is None else Disguised(key)
    with shown.errors():
        if jobs is not None and jobs < 1:
            raise UsageError("--jobs must be at least 1.")
        chosen.check()
        if masks is not None and not masks.is_dir():
            told = "--masks {}: no such folder; name the folder of the masks."
            raise UsageError(said(told, file_name(masks)))
        id_rule = parse_id_rule(chosen.id_from)
    bundle = find_bundle(model)
    verify_bundle(bundle)
    settings = settings_for(
        bundle,
        ene_threshold=ene_threshold,
        pos_from=pos_from,
        operating_point=operating_point,
        engine=engine,
        registration=registration,
        fg_labels=fg_labels,
        include_short_axes=include_short_axes,
        masks=masks,
        keep_prepared=keep_prepared,
    )
    target = device_name(device)
    with shown.errors():
        refuse_overlap(out, {"the input": source, "the folder of the masks": masks})
    with RunStore(out) as store:
        with shown.errors():
            found, told_aside = find_cases(
                source,
                format=chosen.format,
                series=chosen.series,
                affine=chosen.affine,
                on_progress=on_search,
                room=store.room,
                id_rule=id_rule,
                timepoint=chosen.timepoint,
            )
            listed_masks = any(isinstance(case, Case) and case.mask is not None for case in found)
            if listed_masks and masks is not None:
                twice = "{} and --masks both name masks; leave one of them out."
                raise UsageError(said(twice, file_name(source)))
            _refuse_inputs_in(out, found, masks)
        cases, left_aside = shown.cases(found), shown.texts(told_aside)
        record = shown.settings(
            settings_record(
                supply.url or str(source.resolve()),
                settings,
                chosen,
                bundle,
                target.partition(":")[0],
                listed_masks=listed_masks,
            )
        )
        mine = [case for place, case in enumerate(cases) if place % chosen.num_parts == chosen.part_id]
        names = [shown.name(case.case_id) for case in mine]
        store.open(record, overwrite=overwrite, case_ids=names, part=chosen.part)
        run = _Run(store, bundle, settings, digest(record), shown, check_content, parquet, supply)
        crew_size = cases_at_once(jobs)
        document: dict[str, Any] = {
            "format": 1,
            "status": "running",
            "settings": record,
            "selection": {
                **asdict(chosen),
                "series": shown.uid(chosen.series),
                "id_from": shown.rule(chosen.id_from),
            },
            "jobs": crew_size,
            "bundle": bundle_facts(bundle),
            "device": target,
            "left_aside": left_aside,
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        book = _Book(run, document, [shown.person(case) for case in cases], names, chosen)
        with book.kept():
            on_its_way = _Progressing(run, mine, chosen.limit, book, by_case(progress, on_case))
            results = on_its_way.work(crew_size, target, scheduler)
            tables = book.end(results)
    return RunSummary(tuple(results), tables, bundle.card.notice, tuple(left_aside), settings.rule)


class _Book:
    """What is told of a run while it goes on and when it ends: its record and its tables.

    Parameters
    ----------
    document : the record's content.
    every : all cases of the input, each with its patient.
    mine : names of the cases of this call.
    """

    def __init__(
        self,
        run: _Run,
        document: dict[str, Any],
        every: Sequence[Person],
        mine: Sequence[str],
        chosen: Selection,
    ) -> None:
        self._run, self._document, self._chosen = run, document, chosen
        self._persons, self._mine = {person.case_id: person for person in every}, frozenset(mine)
        self._results: dict[str, CaseResult] = {}
        self._unwritten: dict[str, CaseResult] = {}
        self._workers: dict[str, dict[str, Any]] = {}
        self._written_at, self._took = -math.inf, 0.0

    @property
    def device(self) -> str:
        """Where the networks run."""
        return str(self._document["device"])

    def tell(self, **more: int | str) -> None:
        """What is known only when the cases begin: `engine`, or on how many `workers` of a scheduler."""
        self._document |= more

    def tell_worker(self, made: Made) -> None:
        """A case that another process has worked on: its seconds and the memory it took."""
        row = self._workers.setdefault(made.worker, {"cases": 0, "seconds": 0.0, "peak_mb": None})
        row["cases"] += 1
        row["seconds"] = round(row["seconds"] + made.seconds, 3)
        row["peak_mb"] = made.peak_mb

    def add(self, result: CaseResult, *, unwritten: bool = False) -> None:
        """A case that is done; `unwritten` where its folder cannot be, so that the record must tell of it."""
        self._results[result.case_id] = result
        if unwritten:
            self._unwritten[result.case_id] = result
            self._write_record({})
        now = time.monotonic()
        if now - self._written_at >= max(_TABLE_EVERY_S, _TABLE_SHARE * self._took):
            self._write_tables(None)
            self._written_at = time.monotonic()
            self._took = self._written_at - now

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Record and tables say what was done, however the run ends."""
        self._write_record({})
        try:
            yield
        except BaseException:
            with suppress(AieneError):
                self._write_tables(None)
                self._write_record({**_end(list(self._results.values())), "status": "stopped"})
            raise

    def end(self, results: Sequence[CaseResult]) -> dict[str, Path]:
        """Write the tables and the record of a run that came to its end; the path of each table."""
        paths = self._write_tables(datetime.now())
        self._write_record(_end(results))
        return paths

    def _write_tables(self, now: datetime | None) -> dict[str, Path]:
        store, settings = self._run.store, self._run.settings
        with store.lock():  # so that of two parts that end together the later one tells of both
            return store.write_tables(
                self._rows(),
                axes=settings.include_short_axes,
                model=self._run.bundle.card.name,
                rule=settings.rule,
                now=now,
                parquet=self._run.parquet and now is not None,
            )

    def _write_record(self, more: dict[str, Any]) -> None:
        unwritten = [result.to_json() for result in self._unwritten.values()]
        told: dict[str, Any] = {"unwritten": unwritten} if unwritten else {}
        if self._workers:
            told["by_worker"] = self._workers
        document = {**self._document, "environment": environment(self._document["device"])}
        self._run.store.write_run({**document, **more, **told}, part=self._chosen.part)

    def _rows(self) -> list[CaseResult]:
        """A result for every case of the input: of ours as we know it, of other parts as it lies there."""
        others = [name for name in self._persons if name not in self._mine]
        theirs = {result.case_id: result for result in self._run.store.results(others)}
        rows = [
            person.of(self._results.get(n) or theirs.get(n) or self._to_come(place, n))
            for place, (n, person) in enumerate(self._persons.items())
        ]
        return same_ct_told(rows)

    def _to_come(self, place: int, name: str) -> CaseResult:
        if name in self._mine:
            return CaseResult(name, "skipped", said("not done yet; the same command continues from here"))
        part, parts = place % self._chosen.num_parts, self._chosen.num_parts
        return CaseResult(name, "skipped", said("not done yet: it is for --part-id {} of {}", part, parts))


class _Progressing:
    def __init__(
        self,
        run: _Run,
        cases: Sequence[Case | Refusal],
        limit: int | None,
        book: _Book,
        on_case: Callable[[Progress], None],
    ) -> None:
        self._run, self._cases, self._book, self._on_case = run, cases, book, on_case
        self._shown = run.shown
        self._within = len(cases) if limit is None else limit
        self._results: dict[str, CaseResult] = {}
        self._marks: dict[str, tuple[str, str]] = {}
        self._sources = {case.case_id: case.source for case in cases}
        self._persons = {
            case.case_id: Person(case.case_id, case.patient, case.date, case.counts) for case in cases
        }

    def work(self, jobs: int, device: str, scheduler: str | None) -> list[CaseResult]:
        """Settle what needs no work, then work; results in the order of the input."""
        open_cases = [
            case
            for place, case in enumerate(self._cases)
            if not self._settled(place, case) and isinstance(case, Case)
        ]
        if open_cases:
            at_once = min(jobs, len(open_cases))
            own_masks = self._run.settings.masks is not None or all(c.mask is not None for c in open_cases)
            order = case_worker.order_of(self._run.bundle, self._run.settings, device, own_masks=own_masks)
            if scheduler is None and (at_once == 1 or resolve_device(device).type != "cpu"):
                self._work_here(open_cases, at_once, order)
            else:
                self._work_apart(open_cases, at_once, order, scheduler)
        return [self._results[self._shown.name(case.case_id)] for case in self._cases]

    def _work_apart(
        self, open_cases: list[Case], jobs: int, order: case_worker.Order, scheduler: str | None
    ) -> None:
        """In processes of this machine, or on the workers of a scheduler."""
        run = self._run
        with ExitStack() as stack:
            workers: CaseWorkers | ClusterWork
            if scheduler is None:
                workers = stack.enter_context(CaseWorkers(run.bundle, order, jobs, room=run.store.room))
            else:
                client = stack.enter_context(cluster.connected(scheduler, jobs))
                workers = ClusterWork(client, run.bundle, order)
                self._book.tell(workers=workers.check(open_cases), dashboard=client.dashboard_link)
            for case, get_made in workers.each(run.supply.each(open_cases)):
                self._attempt(case, partial(self._taken, get_made))

    def _work_here(self, open_cases: list[Case], jobs: int, order: case_worker.Order) -> None:
        """By networks of this process; other processes prepare their input."""
        run, loaded = self._run, load(self._run.bundle, order)
        networks, preparation = loaded.networks, loaded.preparation
        if networks.segmenter is not None:
            self._book.tell(engine=networks.segmenter.engine.name)

        def infer(get_preprocessed: GetPreprocessed) -> tuple[CaseResult, CaseArrays]:
            return infer_case(
                get_preprocessed(),
                networks,
                run.settings,
                labels=run.bundle.card.labels,
                midline_x=preparation.midline_x,
            )

        with Preparers(
            run.bundle,
            run.settings.masks,
            jobs,
            room=run.store.room,
            registration=run.settings.registration,
        ) as preparers:
            for case, get_preprocessed in preparers.prepared(run.supply.each(open_cases), preparation):
                self._attempt(case, partial(infer, get_preprocessed))

    def _taken(self, get_made: Callable[[], Made]) -> tuple[CaseResult, CaseFiles]:
        made = get_made()
        if made.engine is not None:
            self._book.tell(engine=made.engine)
        self._book.tell_worker(made)
        return made.result, made.files

    def _settled(self, place: int, case: Case | Refusal) -> bool:
        """Whether a case needs no work: refused, beyond the limit, or done by an earlier call."""
        if place >= self._within:
            reason = said("beyond --limit {}", self._within)
            self._keep(CaseResult(case.case_id, "skipped", reason), None)
            return True
        if isinstance(case, Refusal):
            self._keep(CaseResult(case.case_id, "failed", case.reason), None)
            return True
        identity, mark = self._marks[case.case_id] = self._marks_of(case)
        before = self._run.store.finished(self._shown.name(case.case_id), identity)
        if before is None or before.status == "skipped":
            return False
        person = self._shown.person(case)
        if person.of(before) != before:  # other CTs of the patient came or went
            before = person.of(before)
            self._run.store.rewrite_record(before)
        if (self._run.check_content or before.seal != mark) and not self._same_content(case, before):
            return False
        self._tell(before, reused=True)
        return True

    def _attempt(
        self, case: Case, work: Callable[[], tuple[CaseResult, CaseArrays | CaseFiles | None]]
    ) -> None:
        """Infer one case; a failure becomes a row."""
        result, arrays = attempt(
            partial(self._run.supply.checked, case, work),
            lambda error: (_failed(case, error.told), None),
            log=log,
            what=f"case {len(self._results) + 1} of the run",
            shown=self._shown.error,
        )
        identity, mark = self._marks[case.case_id]
        self._keep(replace(result, identity=identity, seal=mark), arrays)
        self._run.supply.release(case)

    def _keep(self, true_result: CaseResult, arrays: CaseArrays | CaseFiles | None) -> None:
        """Write a result; a case that cannot be written is a row too, unless nothing can be any more."""
        source = self._sources[true_result.case_id]
        person = self._persons[true_result.case_id]
        result = self._shown.result(person.of(replace(true_result, source=source)))
        try:
            self._run.store.write_case(result, arrays)
        except (ValueError, TypeError) as error:  # a value that JSON or an image cannot hold, such as NaN
            log.exception("writing a case of the run", exc_info=self._shown.error(error))
            reason = said("its results cannot be written ({}), see the log.", ours(type(error).__name__))
            self._tell(_failed(result, reason), reused=False, unwritten=True)
            return
        except OutputError as error:
            if concerns_one_file(error):
                problem, remedy = ours(error.problem), ours(error.remedy)
                reason = said("its results cannot be written: {}; {}.", problem, remedy)
                self._tell(_failed(result, reason), reused=False, unwritten=True)
                return
            left = len(self._cases) - len(self._results)
            told = said("{}, and {} of {} cases are not done", ours(error.problem), left, len(self._cases))
            raise OutputError(error.path, told, error.remedy) from error
        self._tell(result, reused=False)

    def _tell(self, result: CaseResult, *, reused: bool, unwritten: bool = False) -> None:
        self._results[result.case_id] = result
        self._book.add(result, unwritten=unwritten)
        self._on_case(Progress(len(self._results), len(self._cases), result, reused, self._book.device))

    def _marks_of(self, case: Case) -> tuple[str, str]:
        """Identity and seal of a case, taken before its files are read."""
        own = own_mask_files(case, self._run.settings.masks)
        identity = digest([self._run.shared_identity, glance(case.files), glance(own)])
        seals = [self._run.supply.seal(files) for files in (case.files, own)]
        return self._shown.identity(identity), self._shown.identity(digest(seals))

    def _same_content(self, case: Case, before: CaseResult) -> bool:
        """Whether the files hold what an earlier result was made from, byte for byte."""
        files = case.files, own_mask_files(case, self._run.settings.masks)
        try:
            now = self._run.supply.briefly(case, lambda: joined_sha256(*map(content_sha256, files)))
        except AieneError:
            return False  # reading it again tells what is wrong with it
        return now == before.facts.get("content_sha256")


def _failed(case: Case | CaseResult, reason: str) -> CaseResult:
    return CaseResult(case.case_id, "failed", reason, warnings=case.warnings, notes=case.notes)


def _refuse_inputs_in(out: Path, found: Sequence[Case | Refusal], masks: Path | None) -> None:
    """Refuse results among which an input lies, though a link to it was found elsewhere.

    Raises
    ------
    UsageError : so it is.
    """
    cases = [case for case in found if isinstance(case, Case)]
    refuse_files_within(out, (file for case in cases for file in case.files), "a file of the input")
    refuse_files_within(out, (file for case in cases for file in own_mask_files(case, masks)), "a mask")


def _end(results: Sequence[CaseResult]) -> dict[str, Any]:
    finished = datetime.now(UTC).isoformat(timespec="seconds")
    return {"status": "finished", "finished": finished, **totals(results)}
