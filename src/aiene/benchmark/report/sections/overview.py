"""What was compared, and the main figures."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, numbers, shown, words
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.sections.comparisons import few_patients, main_sentences
from aiene.benchmark.report.sections.wording import KINDS, count
from aiene.benchmark.report.source import Source


def overview(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = [Text(_what(source)), *few_patients(source)]
    items += [Text(sentence) for sentence in main_sentences(source)]
    items += _warnings(source)
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
        told.append("No model was named, so that there is nothing to compare.")
    elif not source.run:
        told.append("No model could be run, so that there are no figures; the reasons stand below.")
    if cases == 0:
        told.append("No case could be used, so that there are no figures; the reasons stand below.")
    elif cases == 1:
        told.append(
            "There is only one case: no interval and no test can be given, and no rank means anything."
        )
    if source.problem:
        told.append(f"{source.problem[0].upper()}{source.problem[1:]}.")
    return [Text(words_, kind="warn") for words_ in told]


def _main_table(source: Source) -> Table:
    labels = source.labels
    head = [
        "Model",
        "Done / failed",
        *(f"Dice {label}" for label in labels),
        *(f"Aggregated {label}" for label in labels),
        "Node sensitivity",
        "False a case",
        "ENE AUC, truth's nodes",
        "ENE AUC, end to end",
        "Seconds a case",
    ]
    builder = TableBuilder("Main figures: mean or value, 95 % interval under it; seconds: median", head)
    for model in source.run:
        name = model["name"]
        cells = [words(name), numbers([dig(model, "cases", "ok"), dig(model, "cases", "failed")])]
        for label in labels:
            cells.append(
                builder.estimate(name, f"Dice {label}", dig(model, "segmentation", label, "dice", "mean"))
            )
        for label in labels:
            cells.append(
                builder.estimate(name, f"aggregated Dice {label}", dig(model, "aggregated_dice", label))
            )
        cells += [
            builder.estimate(name, "sensitivity", dig(model, "detection", "sensitivity")),
            builder.estimate(name, "false nodes", dig(model, "detection", "false_per_case"), "plain"),
            *(
                builder.estimate(name, f"AUC {said}", dig(model, "classification", track, "auc_clustered"))
                for track, said in (("on_truth", "on the truth's nodes"), ("end_to_end", "end to end"))
            ),
            builder.estimate(
                name, "seconds", dig(model, "resources", "seconds", "total", "median"), "seconds"
            ),
        ]
        builder.row(*cells)
    return builder.table()


def _said_table(source: Source) -> Table:
    builder = TableBuilder("The models", ("Model", "Kind", "Source", "Hash", "What to know"))
    for model in source.run:
        said = list(model.get("said") or [])
        if model["name"] == source.reference:
            said.insert(0, "the reference of all comparisons")
        if model.get("ene_threshold") is not None and model.get("classification"):
            said.append(f"own ENE threshold {shown(model['ene_threshold'], 'plain')}")
        builder.row(
            words(model["name"]),
            words(KINDS.get(str(model.get("kind")), model.get("kind"))),
            words(_last(model)),
            words(str(model.get("sha256") or "")[:12]),
            words("; ".join(str(one).rstrip(".") for one in said)),
        )
    return builder.table()


def _last(model: dict[str, Any]) -> str:
    """The model's source: an id, or the last name of a path, since folders above may name people."""
    source = str(model.get("source") or "")
    return source.rstrip("/").rsplit("/", 1)[-1] if source.startswith(("/", "~", ".")) else source
