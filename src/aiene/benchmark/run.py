"""A whole benchmark: pair, read the truth, run every model on every case, sum up, write."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiene.benchmark.case_evaluation import (
    CaseTask,
    TruthTask,
    close,
    keep_case,
    keep_truth,
    lost_case,
    lost_truth,
    opened,
)
from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.encoder import judge_features
from aiene.benchmark.comparators.protocol import Entrant, Request, adapters, kind_of_folder
from aiene.benchmark.config import BenchmarkConfig, Kind, ModelEntry
from aiene.benchmark.dataset import find_pairs, list_files, patient_finder
from aiene.benchmark.ene_labels import EneTable, read_ene_table
from aiene.benchmark.records import (
    WORK,
    CaseRecord,
    Pair,
    Pairing,
    TruthRecord,
    done_record,
    key_of,
    model_files,
    to_json,
    truth_files,
)
from aiene.benchmark.summary import results_csv, source_name, summary_of
from aiene.device import available_cores, resolve_device
from aiene.errors import AieneError, InputError, ModelError, UsageError, attempt
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
    image_dir, seg_dir = _folder(config, "image_dir"), _folder(config, "seg_dir")
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
    owned = Owned(out)
    owned.claim(WORK)
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
        results = out / f"benchmark_results_{stamp}.csv"
        summary_file = out / f"benchmark_summary_{stamp}.json"
        content, failures = results_csv(out, pairing, truths, told)
        if "csv" in config.output_formats:
            owned.write(results, content)
        facts = {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "aiene": version(),
            "machine": machine(str(device)),
            "settings": settings(config),
            "files": {"results": results.name if "csv" in config.output_formats else None},
        }
        summary = summary_of(config, out, pairing, truths, told, table, facts)
        owned.write_json(summary_file, summary)
        return BenchmarkRun(summary, results, summary_file, int(failures > 0))


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Hold the folder while its records are made and read: another run's would be taken for this one's."""
    file = out / WORK / "in-use"
    with writing(file):
        stream = file.open("ab")
    with stream:
        if try_lock(stream) is False:
            raise UsageError(
                f"another benchmark runs in {out.name}; wait until it has ended, or choose another -o."
            )
        yield


def _folder(config: BenchmarkConfig, name: Literal["image_dir", "seg_dir"]) -> Path:
    folder: Path | None = getattr(config, name)
    if folder is None:
        raise UsageError(f"no folder of {name[:-4]}s; name one with --{name.replace('_', '-')}.")
    return folder


def _write_cases(out: Path, config: BenchmarkConfig, pairing: Pairing, pairs: Sequence[Pair]) -> None:
    cases = []
    for pair in pairs:
        image = pair.image.files[0] if pair.image.kind != "dicom" else pair.image.files[0].parent
        files = {"image": str(image.resolve()), "mask": str(pair.mask.resolve())}
        cases.append({"case_id": pair.case_id, **files})
    write_json(out / WORK / "cases.json", {"format": 1, "cases": cases, "notes": list(pairing.notes)})
    write_json(out / WORK / "run.json", {"format": 1, "aiene": version(), "settings": settings(config)})


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
        before = done_record(TruthRecord, record_file, identity)
        if before is not None and all(map(Path.is_file, images)):
            records[pair.case_id] = before
            on_step(Step("", len(records), len(pairs), pair.case_id, "ok", "", True))
        else:
            tasks.append(TruthTask(pair, config, out, who, identity, node_map, rows))
    for task, record in work_through(
        keep_truth, tasks, jobs=jobs, threads=config.threads, lost=lambda task: lost_truth(task, ENDED)
    ):
        records[task.pair.case_id] = record
        on_step(Step("", len(records), len(pairs), record.case_id, record.status, record.reason, False))
    return [records[pair.case_id] for pair in pairs]


def _opened(entrant: Entrant, let_go: bool, threads: int) -> Entrant:
    """The model's facts; a model that is not there has a reason instead."""
    request = entrant.request
    if request is None:
        return entrant

    def work() -> Entrant:
        with limited(threads):
            return replace(entrant, facts=opened(request).facts)

    try:
        what = "a model of the benchmark"
        return attempt(work, lambda error: replace(entrant, reason=str(error)), log=log, what=what)
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
        name = request.entry.prompt_model
        bundles = [e for e in before if e.request is not None and e.request.kind == "bundle"]
        prompter = next((e for e in bundles if name is None or e.name == name), None)
        if prompter is None or prompter.facts is None:
            return replace(entrant, facts=None, reason=_NO_PROMPTER)
    model = [facts.sha256, request.entry.model_dump(mode="json"), request.resample, request.device]
    timing = [config.repeats, config.threads]
    shown = None if prompter is None or prompter.facts is None else prompter.facts.sha256
    how = [version(), model, config.iou_threshold, timing, shown]
    tasks: list[CaseTask] = []
    reused = 0
    for place, (pair, truth) in enumerate(usable):
        identity = digest([how, truth.identity, truth.content_sha256])
        if done_record(CaseRecord, model_files(out, entrant.key, pair.case_id)[0], identity) is not None:
            reused += 1
            on_step(Step(entrant.name, reused, len(usable), pair.case_id, "ok", "", True))
            continue
        flops = config.flops and place == 0 and facts.parameters is not None
        key = None if prompter is None else prompter.key
        tasks.append(CaseTask(request, pair, truth, config, out, identity, key, flops))
    jobs, apart = crew
    worked = work_through(keep_case, tasks, jobs=jobs, threads=config.threads, lost=_lost_case, apart=apart)
    for number, (task, record) in enumerate(worked, start=reused + 1):
        said = (task.pair.case_id, record.status, record.reason)
        on_step(Step(entrant.name, number, len(usable), *said, False))
    close()
    write_json(
        out / WORK / "models" / entrant.key / "model.json",
        {"format": 1, "name": entrant.name, "key": entrant.key, "kind": request.kind, "sha256": facts.sha256},
    ) if usable else None
    if facts.features:
        reason = judge_features(config, out, entrant, [truth for _, truth in usable])
        entrant = replace(entrant, probe_reason=reason)
    return entrant


_NO_PROMPTER = "its prompts come from a bundle (prompts: road), but none such ran; add it to the models."


def _lost_case(task: CaseTask) -> CaseRecord:
    record = lost_case(task, ENDED)
    write_json(model_files(task.folder, record.key, record.case_id)[0], to_json(record))
    return record


# The models: from the command line and the configuration to what is to be opened


_KindOf = Callable[[ModelEntry], tuple[Kind, Path | None]]


def _is_monai(folder: Path) -> bool:
    return (folder / "configs" / "inference.json").is_file()


def bundle_kind(entry: ModelEntry) -> Kind:
    """Of what `--models` names: a MONAI bundle's folder, or one of ours."""
    return entry.kind or ("monai" if _is_monai(Path(entry.source)) else "bundle")


def located(entry: ModelEntry) -> tuple[Kind, Path]:
    """Kind and folder of what `--hf-models` names, fetched where it is an id.

    Raises
    ------
    ModelError : there is no such model, or no adapter takes it.
    """
    folder = hub.model_folder(entry.source.removeprefix("timm:"), entry.revision)
    if entry.source.startswith("timm:"):
        return "timm", folder
    if entry.kind is not None:
        return entry.kind, folder
    config = hub.read_json(folder, hub.CONFIG)
    if _is_monai(folder):
        return "monai", folder
    if not config:
        raise ModelError(folder, "it holds no config.json", "name a folder in Hugging Face's layout")
    return hf_kind(folder, config), folder


def hf_kind(folder: Path, config: dict[str, object]) -> Kind:
    """The adapter for a model of Hugging Face, by its configuration.

    Raises
    ------
    ModelError : it is a kind of segmenter that no adapter takes.
    """
    taker = next((each.kind for each in adapters().values() if each.takes_config(config)), None)
    if taker is not None:
        return taker
    named = config.get("architectures")
    architectures = [str(name) for name in named] if isinstance(named, list) else []
    if any(name.endswith(("ForUniversalSegmentation", "ForInstanceSegmentation")) for name in architectures):
        problem = f"{architectures[0]} is a kind of segmenter that is not known here"
        raise ModelError(folder, problem, "give its predictions as a folder with --predictions")
    return "encoder"


def line_up(config: BenchmarkConfig, device: str) -> list[Entrant]:
    """Every model in the order in which it is to run: those that wait for a bundle's prompts last.

    Bundles and MONAI bundles first, then Hugging Face models, then folders of predictions; the default bundle
    where nothing is named at all.

    Raises
    ------
    UsageError : two models of one name, or a reference that is none of them.
    """
    models = list(config.models)
    if not (models or config.hf_models or config.predictions):
        models = [ModelEntry(source="default")]
    entries: list[tuple[ModelEntry, _KindOf]] = [(entry, _kind_of) for entry in models]
    entries += [(ModelEntry(source=source), located) for source in config.hf_models]
    entries += [
        (ModelEntry(source=str(where), name=name, kind=kind_of_folder(where)), _kind_of)
        for name, where in config.predictions.items()
    ]
    entrants: list[Entrant] = []
    for place, (entry, kind_of) in enumerate(entries):
        entrants.append(_entrant(entry, kind_of, place, config, device, {e.key for e in entrants}))
    if config.reference is not None and config.reference not in {e.name for e in entrants}:
        names = ", ".join(e.name for e in entrants)
        raise UsageError(f"--reference {config.reference}: no model of this name; there are {names}.")
    return sorted(entrants, key=lambda e: e.request is not None and e.request.entry.prompts == "road")


def _entrant(
    entry: ModelEntry,
    kind_of: _KindOf,
    place: int,
    config: BenchmarkConfig,
    device: str,
    taken: set[str],
) -> Entrant:
    name = entry.name or Path(entry.source.rstrip("/\\").removeprefix("timm:")).name or entry.source
    if key_of(name) in taken:
        if entry.name is not None:
            raise UsageError(f"two models are called {name}; give each its own name.")
        number = next(n for n in range(2, len(taken) + 3) if key_of(f"{name}_{n}") not in taken)
        name = f"{name}_{number}"
    kind, request, reason = entry.kind, None, ""
    try:
        kind, folder = kind_of(entry)
        request = Request(name, kind, entry, device, config.resample, folder)
    except AieneError as error:
        reason = str(error)
    return Entrant(name, key_of(name), entry.source, kind, place, request, reason)


def _kind_of(entry: ModelEntry) -> tuple[Kind, Path | None]:
    """Of an entry of the configuration, or of what `--models` names."""
    of_hub = _is_hugging_face(entry.source) if entry.kind is None else adapters()[entry.kind].from_hub
    return located(entry) if of_hub else (bundle_kind(entry), None)


def _is_hugging_face(source: str) -> bool:
    """A folder in Hugging Face's layout, or something that only a hub id can be."""
    folder = Path(source)
    if folder.is_dir():
        return (folder / "config.json").is_file() and not (folder / "model.json").is_file()
    return source.startswith("timm:") or (source.count("/") == 1 and not source.startswith((".", "/", "~")))
