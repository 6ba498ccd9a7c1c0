"""A whole benchmark: pair, read the truth, run every model on every case, sum up, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aiene.benchmark.case_evaluation import CaseTask, TruthTask, close, keep_case, keep_truth, opened
from aiene.benchmark.comparators.protocol import Entrant
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.dataset import find_pairs, list_files, patient_finder
from aiene.benchmark.ene_evaluation import cross_validated
from aiene.benchmark.ene_labels import EneTable, read_ene_table
from aiene.benchmark.models import line_up, source_name
from aiene.benchmark.records import (
    WORK,
    CaseRecord,
    Pair,
    Pairing,
    TruthRecord,
    key_of,
    model_files,
    read_record,
    read_truth,
    truth_files,
)
from aiene.benchmark.summary import results_csv, summary_of
from aiene.device import available_cores, resolve_device
from aiene.errors import AieneError, InputError, UsageError, attempt, need
from aiene.hashing import digest
from aiene.ingest.fingerprint import glance
from aiene.parallel import ENDED, limited, work_through
from aiene.provenance import machine, version
from aiene.results.atomic import try_lock, write_json, writing
from aiene.results.ownership import Owned, refuse_overlap

log = logging.getLogger(__name__)


class Step(NamedTuple):
    """One case that is done, for who watches.

    Parameters
    ----------
    model : empty while the ground truth is read.
    reused : its result was there from an earlier call.
    """

    model: str
    number: int
    total: int
    case_id: str
    status: str
    reason: str
    reused: bool


@dataclass(frozen=True)
class BenchmarkRun:
    """What a benchmark ended with.

    Parameters
    ----------
    summary : the content of `summary_file`.
    results_file, summary_file : `benchmark_results_<time>.csv`, `benchmark_summary_<time>.json`.
    exit_code : 0 everything is done, 1 a case or a model failed.
    """

    summary: dict[str, Any]
    results_file: Path
    summary_file: Path
    exit_code: int


def _nothing_paired(pairing: Pairing, image_dir: Path, seg_dir: Path) -> InputError:
    if pairing.refused:
        first, count = pairing.refused[0], len(pairing.refused)
        problem = (
            f"no case in it can be compared; {count} refused, the first, {first.case_id}: {first.reason}"
        )
        return InputError(image_dir, problem.rstrip("."), f"put this right, here or in {seg_dir.name}")
    problem = "no image in it has a mask of the same case id"
    return InputError(image_dir, problem, f"compare its names with those in {seg_dir.name}")


def run_benchmark(
    config: BenchmarkConfig,
    out: Path,
    *,
    jobs: int | None = None,
    apart: bool = False,
    on_step: Callable[[Step], None] = lambda _: None,
    now: datetime | None = None,
) -> BenchmarkRun:
    """Compare models on images with ground truth.

    What is done is kept case by case under `out/work`; a call that was ended goes on from there, and gives
    the same figures but for the times. Failed cases are tried again.

    Parameters
    ----------
    jobs : cases side by side; None: one a core, or 1 on a GPU. The figures do not depend on it.
    apart : models run in processes of their own also with one job, so that memory is measured cleanly.
    now : the time in the files' names.

    Raises
    ------
    InputError, UsageError : nothing to compare, words that do not fit, or another run in this folder.
    OutputError : results cannot be written.
    """
    image_dir, seg_dir = _folders(config)
    refuse_overlap(
        out,
        {
            "the folder of the images": image_dir,
            "the folder of the masks": seg_dir,
            "the folder of the node maps": config.node_maps,
            **{f"the predictions of {name}": folder for name, folder in config.predictions.items()},
        },
    )
    device = resolve_device(config.device)
    crew = jobs or (1 if device.type == "cuda" else available_cores())
    table = None if config.ene_csv is None else read_ene_table(config.ene_csv)
    patient = patient_finder(config, table)
    pairing = find_pairs(image_dir, seg_dir)
    if not pairing.pairs:
        raise _nothing_paired(pairing, image_dir, seg_dir)
    Owned(out).claim(WORK)
    with _alone(out):
        pairs = pairing.pairs[: config.max_cases]
        entrants = line_up(config, str(device))
        _write_cases(out, config, pairing, pairs)
        truths = _truths(config, out, pairs, table, patient, crew, on_step)
        usable = [(pair, truth) for pair, truth in zip(pairs, truths, strict=True) if truth.status == "ok"]
        told: list[Entrant] = []
        for entrant in entrants:
            opened = _opened(entrant, apart or crew > 1, config.threads)
            if opened.facts is not None:
                opened = _run_model(config, out, opened, told, usable, (crew, apart), on_step)
            told.append(opened)
        told.sort(key=lambda one: one.place)
        stamp = (now or datetime.now()).strftime("%Y%m%d_%H%M%S")
        return _written(config, out, pairing, truths, told, table, str(device), stamp)


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder while its records are made and read: another run's would be taken for this one's.

    Raises
    ------
    UsageError : another run holds it.
    """
    file = out / WORK / "in-use"
    with writing(file):
        stream = file.open("ab")
    with stream:
        if try_lock(stream) is False:
            raise UsageError(
                f"another benchmark runs in {out.name}; wait until it has ended, or choose another -o."
            )
        yield


def _folders(config: BenchmarkConfig) -> tuple[Path, Path]:
    for name in ("image_dir", "seg_dir"):
        if getattr(config, name) is None:
            raise UsageError(f"no folder of {name[:-4]}s; name one with --{name.replace('_', '-')}.")
    if config.image_dir is None or config.seg_dir is None:
        raise UsageError("no folders.")
    return config.image_dir, config.seg_dir


def _write_cases(out: Path, config: BenchmarkConfig, pairing: Pairing, pairs: Sequence[Pair]) -> None:
    cases = [
        {"case_id": p.case_id, "image": str(_place(p).resolve()), "mask": str(p.mask.resolve())}
        for p in pairs
    ]
    write_json(out / WORK / "cases.json", {"format": 1, "cases": cases, "notes": list(pairing.notes)})
    write_json(out / WORK / "run.json", {"format": 1, "aiene": version(), "settings": settings(config)})


def _place(pair: Pair) -> Path:
    return pair.image.files[0] if pair.image.kind != "dicom" else pair.image.files[0].parent


def settings(config: BenchmarkConfig) -> dict[str, Any]:
    """The configuration as JSON values, folders by their last name only."""
    content = config.model_dump(mode="json")
    for name in ("image_dir", "seg_dir", "ene_csv", "node_maps", "leaderboard"):
        content[name] = None if content[name] is None else Path(content[name]).name
    content["predictions"] = {name: Path(where).name for name, where in content["predictions"].items()}
    content["hf_models"] = [source_name(one) for one in content["hf_models"]]
    content["models"] = [{**one, "source": source_name(one["source"])} for one in content["models"]]
    return content


def _truths(
    config: BenchmarkConfig,
    out: Path,
    pairs: Sequence[Pair],
    table: EneTable | None,
    patient: Callable[[str], str],
    jobs: int,
    on_step: Callable[[Step], None],
) -> list[TruthRecord]:
    maps = list_files(config.node_maps, "mask").files if config.node_maps is not None else {}
    tasks, records = [], dict[str, TruthRecord]()
    for pair in pairs:
        rows = () if table is None else table.of(pair.case_id)
        node_map = maps.get(pair.case_id)
        files = (*pair.image.files, pair.mask, *([node_map] if node_map else []))
        choice = [config.labels.model_dump(mode="json"), config.nodes, config.resample]
        who = patient(pair.case_id)
        identity = digest([version(), glance(files), choice, [repr(row) for row in rows], who])
        record_file, *images = truth_files(out, pair.case_id)
        before = read_truth(record_file)
        if before is not None and before.status == "ok" and before.identity == identity and _all(images):
            records[pair.case_id] = before
            on_step(Step("", len(records), len(pairs), pair.case_id, "ok", "", True))
        else:
            tasks.append(TruthTask(pair, config, out, who, identity, node_map, rows))
    lost = _lost_truth
    for task, record in work_through(keep_truth, tasks, jobs=jobs, threads=config.threads, lost=lost):
        records[task.pair.case_id] = record
        on_step(Step("", len(records), len(pairs), record.case_id, record.status, record.reason, False))
    return [records[pair.case_id] for pair in pairs]


def _all(files: Sequence[Path]) -> bool:
    return all(file.is_file() for file in files)


def _lost_truth(task: TruthTask) -> TruthRecord:
    return TruthRecord(task.pair.case_id, task.patient, "failed", ENDED, task.identity)


def _opened(entrant: Entrant, let_go: bool, threads: int) -> Entrant:
    """The model's facts; a model that is not there has a reason instead."""
    if entrant.request is None:
        return entrant
    request = entrant.request

    def work() -> Entrant:
        with limited(threads):
            return replace(entrant, facts=opened(request).facts)

    def failed(error: AieneError) -> Entrant:
        return replace(entrant, reason=str(error))

    try:
        return attempt(work, failed, log=log, what="a model of the benchmark")
    finally:
        if let_go:
            close()


def _run_model(
    config: BenchmarkConfig,
    out: Path,
    entrant: Entrant,
    before: Sequence[Entrant],
    usable: Sequence[tuple[Pair, TruthRecord]],
    crew: tuple[int, bool],
    on_step: Callable[[Step], None],
) -> Entrant:
    request, facts = entrant.request, entrant.facts
    if request is None or facts is None:
        return entrant
    prompter = None
    if request.kind == "promptable" and request.entry.prompts == "road":
        prompter = _prompter(request.entry.prompt_model, before)
        if prompter is None or prompter.facts is None:
            return replace(entrant, facts=None, reason=_NO_PROMPTER)
    model = [facts.sha256, request.entry.model_dump(mode="json"), request.resample, request.device]
    timing = [config.repeats, config.threads]
    shown = None if prompter is None else _facts_of(prompter)
    how = [version(), model, config.iou_threshold, timing, shown]
    tasks: list[CaseTask] = []
    reused = 0
    for place, (pair, truth) in enumerate(usable):
        identity = digest([how, truth.identity, truth.content_sha256])
        if _done(out, entrant.key, pair.case_id, identity):
            reused += 1
            on_step(Step(entrant.name, reused, len(usable), pair.case_id, "ok", "", True))
            continue
        flops = config.flops and place == 0 and facts.parameters is not None
        key = None if prompter is None else prompter.key
        tasks.append(CaseTask(request, pair, truth, config, out, identity, key, flops))
    number = reused
    jobs, apart = crew
    for task, record in work_through(
        keep_case, tasks, jobs=jobs, threads=config.threads, lost=_lost_case, apart=apart
    ):
        number += 1
        said = (task.pair.case_id, record.status, record.reason)
        on_step(Step(entrant.name, number, len(usable), *said, False))
    close()
    write_json(
        out / WORK / "models" / entrant.key / "model.json",
        {"format": 1, "name": entrant.name, "key": entrant.key, "kind": request.kind, "sha256": facts.sha256},
    ) if usable else None
    if facts.features:
        reason = _judge_features(config, out, entrant, [truth for _, truth in usable])
        entrant = replace(entrant, probe_reason=reason)
    return entrant


_NO_PROMPTER = "its prompts come from a bundle (prompts: road), but none such ran; add it to the models."


def _prompter(name: str | None, before: Sequence[Entrant]) -> Entrant | None:
    bundles = [e for e in before if e.request is not None and e.request.kind == "bundle"]
    return next((e for e in bundles if name is None or e.name == name), None)


def _facts_of(entrant: Entrant) -> str:
    return "" if entrant.facts is None else entrant.facts.sha256


def _done(out: Path, key: str, case_id: str, identity: str) -> bool:
    record = read_record(model_files(out, key, case_id)[0])
    return record is not None and record.status == "ok" and record.identity == identity


def _lost_case(task: CaseTask) -> CaseRecord:
    record = CaseRecord(
        model=task.request.name,
        key=key_of(task.request.name),
        kind=task.request.kind,
        case_id=task.pair.case_id,
        patient_id=task.truth.patient_id,
        status="failed",
        reason=ENDED,
        identity=task.identity,
        truth_nodes=task.truth.nodes,
    )
    write_json(model_files(task.folder, record.key, record.case_id)[0], record.to_json())
    return record


def _judge_features(
    config: BenchmarkConfig, out: Path, entrant: Entrant, truths: Sequence[TruthRecord]
) -> str:
    """Fit the probe over all cases and put its out-of-fold probabilities into their records.

    Returns
    -------
    Why there are none; empty where there are.
    """
    need("sklearn", extra="benchmark", purpose="A probe on frozen features")
    rows, features = [], []
    for truth in truths:
        file = model_files(out, entrant.key, truth.case_id)[3]
        if not file.is_file():
            continue
        with np.load(file, allow_pickle=False) as kept:
            for node in truth.nodes:
                if node.ene is not None and str(node.value) in kept.files:
                    rows.append((truth.case_id, truth.patient_id, node.value, node.ene))
                    features.append(kept[str(node.value)])
    entry = entrant.request.entry if entrant.request is not None else None
    if not any(node.ene is not None for truth in truths for node in truth.nodes):
        return "no node has an ENE label; give --ene-csv"
    if entry is None or not rows:
        return "the model gave no finite features for a labelled node; see the warnings of its cases"
    result = cross_validated(
        np.stack(features),
        [ene for *_, ene in rows],
        [who for _, who, *_ in rows],
        probe=entry.probe,
        neighbours=entry.neighbours,
        seed=config.seed,
    )
    odds: dict[tuple[str, int], float] = {}
    if result.probabilities is not None:
        odds = {(case, value): p for (case, _, value, _), p in zip(rows, result.probabilities, strict=True)}
    for truth in truths:
        file = model_files(out, entrant.key, truth.case_id)[0]
        record = read_record(file)
        if record is None or record.status != "ok":
            continue
        nodes = [replace(n, ene_on_truth=odds.get((truth.case_id, n.value))) for n in record.truth_nodes]
        write_json(file, replace(record, truth_nodes=tuple(nodes)).to_json())
    return result.reason


def _written(
    config: BenchmarkConfig,
    out: Path,
    pairing: Pairing,
    truths: Sequence[TruthRecord],
    entrants: Sequence[Entrant],
    table: EneTable | None,
    device: str,
    stamp: str,
) -> BenchmarkRun:
    results, summary_file = out / f"benchmark_results_{stamp}.csv", out / f"benchmark_summary_{stamp}.json"
    content, failures = results_csv(out, pairing, truths, entrants)
    owned = Owned(out)
    if "csv" in config.output_formats:
        owned.write(results, content)
    facts = {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "aiene": version(),
        "machine": machine(device),
        "settings": settings(config),
        "files": {"results": results.name if "csv" in config.output_formats else None},
    }
    summary = summary_of(config, out, pairing, truths, entrants, table, facts)
    owned.write_json(summary_file, summary)
    return BenchmarkRun(summary, results, summary_file, int(failures > 0))
