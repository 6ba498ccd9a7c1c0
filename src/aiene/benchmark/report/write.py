"""From the folder of a benchmark to its report; sections on what was compared, methods and exclusions."""

from __future__ import annotations

import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aiene.benchmark.report.comparison import comparisons, few_patients, ranks, verdict
from aiene.benchmark.report.performance import classification, detection, resources, segmentation
from aiene.benchmark.report.results_reader import (
    TRACKS,
    FigureColumn,
    Source,
    count,
    kind_title,
    models_table,
    read_source,
    word_table,
)
from aiene.benchmark.report.worst_cases import worst
from aiene.report.document import RESEARCH_ONLY, CellTable, Document, Item, Section, Text
from aiene.report.formatting import dig, shown
from aiene.report.write import draw_figures, page, write_figures
from aiene.results.ownership import Owned


def overview(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = [*verdict(source), *few_patients(source), Text(_what(source)), *_warnings(source)]
    items += [_main_table(source), _said_table(source)] if source.run else []
    return Section("summary", "Summary", tuple(items))


def _what(source: Source) -> str:
    data, run = source.summary["data"], source.run
    nodes = int(data.get("nodes") or 0)
    what = (
        f"{count(int(data.get('cases') or 0), 'case')} of {count(int(data.get('patients') or 0), 'patient')}"
    )
    what += f" with {count(nodes, 'lymph node')} in the ground truth"
    labelled = int(data.get("nodes_labelled") or 0)
    if labelled:
        positive = int(data.get("nodes_ene") or 0)
        what += f", {labelled} of them labelled for extranodal extension ({positive} with it)"
    else:
        what += "; no node has a label of extranodal extension"
    failed = len(source.models) - len(run)
    what += f". {count(len(run), 'model')} could be run"
    what += f", {failed} could not" if failed else ""
    return what + "."


def _warnings(source: Source) -> list[Text]:
    told = []
    cases = int(dig(source.summary, "data", "cases") or 0)
    if not source.models:
        told.append("No model was named, so there is nothing to compare.")
    elif not source.run:
        told.append("No model could be run, so there are no figures; the reasons are given below.")
    if cases == 0:
        told.append("No case could be used, so there are no figures; the reasons are given below.")
    elif cases == 1:
        told.append("There is only one case, so no interval, test or meaningful rank can be given.")
    if source.problem:
        told.append(f"{source.problem[0].upper()}{source.problem[1:]}.")
    return [Text(words_, kind="warning") for words_ in told]


def _main_table(source: Source) -> CellTable:
    columns = [
        FigureColumn("Done / failed", ("cases.ok", "cases.failed")),
        *(FigureColumn(f"Dice {label}", f"segmentation.{label}.dice.mean") for label in source.labels),
        *(
            FigureColumn(f"Aggregated {n}", f"aggregated_dice.{n}", what=f"aggregated Dice {n}")
            for n in source.labels
        ),
        FigureColumn("Node sensitivity", "detection.sensitivity", what="sensitivity"),
        FigureColumn("False a case", "detection.false_per_case", "plain", "false nodes"),
        *(
            FigureColumn(head, f"classification.{track}.auc_clustered", what=f"AUC {TRACKS[track]}")
            for head, track in (("ENE AUC, truth's nodes", "on_truth"), ("ENE AUC, end to end", "end_to_end"))
        ),
        FigureColumn("Seconds a case", "resources.seconds.total.median", "seconds", "seconds"),
    ]
    title = "Main figures: mean or value, 95 % interval under it; seconds: median"
    return models_table(title, columns, [(model["name"], model) for model in source.run])


def _said_table(source: Source) -> CellTable:
    rows = []
    for model in source.run:
        said = list(model.get("said") or [])
        if model["name"] == source.reference:
            said.insert(0, "the reference of all comparisons")
        if model.get("ene_threshold") is not None and model.get("classification"):
            said.append(f"own ENE threshold {shown(model['ene_threshold'], 'plain')}")
        told = "; ".join(str(one).rstrip(".") for one in said)
        sha256 = str(model.get("sha256") or "")[:12]
        rows.append((model["name"], kind_title(model.get("kind")), _last(model), sha256, told))
    return word_table("The models", ("Model", "Kind", "Source", "Hash", "What to know"), rows)


def _last(model: dict[str, Any]) -> str:
    """The model's source: an id, or the last name of a path, since folders above may name people."""
    source = str(model.get("source") or "")
    return source.rstrip("/").rsplit("/", 1)[-1] if source.startswith(("/", "~", ".")) else source


# Methods: data, machine, versions, settings, conventions


def methods(source: Source) -> Section:
    """The chapter."""
    return Section(
        "methods",
        "How it was done",
        (Text("Conventions", _conventions(source)), _facts(source), _settings(source)),
    )


def _conventions(source: Source) -> tuple[str, ...]:
    settings = source.summary["settings"]
    thresholds = ", ".join(shown(one, "plain") for one in settings.get("ene_thresholds") or [])
    text = (
        importlib.resources.files("aiene.benchmark.report")
        .joinpath("conventions.txt")
        .read_text(encoding="utf-8")
    )
    told = text.format(
        iou=shown(settings.get("iou_threshold"), "plain"),
        published=thresholds or "none was set",
        resamples=settings.get("resamples"),
        seed=settings.get("seed"),
    )
    return tuple(" ".join(paragraph.split()) for paragraph in told.split("\n\n"))


def _facts(source: Source) -> CellTable:
    data, machine = source.summary["data"], source.summary["machine"]
    packages = machine.get("packages") or {}
    facts = (
        ("Made", source.summary.get("created")),
        ("Hash of the data set (content of images, masks, ENE labels)", data.get("sha256")),
        ("Cases", ", ".join(str(one) for one in data.get("case_ids") or [])),
        ("Processor", machine.get("cpu")),
        ("Cores", machine.get("cores")),
        ("Memory (GiB)", machine.get("memory_gib")),
        ("Device", machine.get("device")),
        ("GPU", _plain(machine.get("gpu")) if machine.get("gpu") else "none"),
        ("System", " ".join(str(machine.get(n)) for n in ("system", "architecture") if machine.get(n))),
        ("Python", machine.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
        ("Results", dig(source.summary, "files", "results")),
    )
    return word_table("Data, machine and versions", ("What", "Value"), facts)


def _settings(source: Source) -> CellTable:
    rows = []
    for name, value in source.summary["settings"].items():
        if name == "models" and isinstance(value, list):
            for number, one in enumerate(value, start=1):
                given = {k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else one
                rows.append((f"model {number}", _plain(given)))
        else:
            rows.append((name, _plain(value)))
    return word_table("Settings", ("Setting", "Value"), rows)


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)


# Exclusions


def trouble(source: Source) -> Section:
    """The chapter."""
    rows = [row for row in source.rows if row.get("model")]
    failed = [row for row in rows if row.get("status") == "failed" and row.get("case_id")]
    warned = [row for row in rows if row.get("warnings")]
    models = [
        (model["name"], kind_title(model.get("kind")), model.get("reason"))
        for model in source.models
        if model.get("status") != "ok"
    ]
    unmatched = dig(source.summary, "ene_csv", "unmatched") or []
    ene = [(one.get("row"), one.get("case_id"), one.get("reason")) for one in unmatched]
    items: list[Item] = [
        *_table_if("Models that could not be run", ("Model", "Kind", "Reason"), models),
        *_pairing(source),
        *_table_if("Cases that failed in a model", ("Model", "Cases", "Reason"), _by_model(failed, "reason")),
        *_table_if("Rows of the ENE file that belong to no node", ("Row", "Case", "Reason"), ene),
        *_table_if("Warnings", ("Model", "Cases", "Warning"), _by_model(warned, "warnings")),
    ]
    if not items:
        items.append(Text("Every model was run on every case; no image, mask or row was left out."))
    return Section("left-out", "What was left out", tuple(items))


def _table_if(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> list[CellTable]:
    return [word_table(title, head, rows)] if rows else []


def _pairing(source: Source) -> list[Item]:
    pairing = source.summary.get("pairing") or {}
    items: list[Item] = []
    for key, said in (
        ("images_without_mask", "Images without a mask"),
        ("masks_without_image", "Masks without an image"),
    ):
        listed = [str(one) for one in pairing.get(key) or []]
        if listed:
            items.append(Text(f"{said} ({len(listed)}): {', '.join(listed)}."))
    refused = [(one.get("case_id"), one.get("reason")) for one in pairing.get("refused") or []]
    items += _table_if("Cases that could not be used for any model", ("Case", "Reason"), refused)
    beyond = int(pairing.get("beyond_max_cases") or 0)
    if beyond:
        items.append(
            Text(f"{count(beyond, 'case')} beyond --max-cases {'was' if beyond == 1 else 'were'} not taken.")
        )
    notes = tuple(str(note) for note in pairing.get("notes") or [])
    return [*items, *([Text("On pairing:", notes)] if notes else [])]


def _by_model(rows: list[dict[str, str]], column: str) -> list[tuple[str, str, str]]:
    """Model, cases and what stands in a column, the cases of one model and one reason in one row."""
    together: dict[tuple[str, str], list[str]] = {}
    for row in rows:
        together.setdefault((row["model"], row.get(column) or ""), []).append(row.get("case_id") or "")
    return [(model, ", ".join(cases), said) for (model, said), cases in together.items()]


CHAPTERS = (
    *(overview, segmentation, detection, classification, comparisons, ranks, resources, worst, trouble),
    methods,
)
"""Every chapter in its order; one that has nothing to show says so."""
_CLOSING = "A difference that is not shown is not proof that there is none."


def write_report(folder: Path) -> Path:
    """Write `benchmark_report_<time>.html` and, in `benchmark_charts_<time>/`, its charts.

    Each chart is there as PNG, SVG and CSV, with its legend. The same results give the same bytes.

    Parameters
    ----------
    folder : of a benchmark that is done; its newest summary is reported.

    Returns
    -------
    The HTML file.

    Raises
    ------
    InputError : the folder holds no benchmark that this version can read.
    OutputError : the report cannot be written.
    MissingExtraError : matplotlib or jinja2 is not installed.
    """
    source = read_source(folder)
    document = document_of(source)
    figures = [figure for section in document.sections for figure in section.figures]
    pictures = draw_figures(figures)
    charts = folder / f"benchmark_charts_{source.stamp}"
    owned = Owned(folder)
    if figures:
        owned.claim(charts.name)
        write_figures(owned, charts, figures, pictures)
    path = folder / f"benchmark_report_{source.stamp}.html"
    owned.write(path, page(document, pictures, figures=charts.name).encode())
    return path


def document_of(source: Source) -> Document:
    """The page of a benchmark."""
    created = str(source.summary.get("created", ""))[:16].replace("T", " ")
    return Document(
        title=f"Benchmark of {len(source.models)} {'model' if len(source.models) == 1 else 'models'}",
        lead=f"Made {created} UTC with aiene {source.summary.get('aiene', '')}".strip(),
        notice=RESEARCH_ONLY,
        sections=tuple(chapter(source) for chapter in CHAPTERS),
        closing=_CLOSING,
    )
