"""How many nodes were found, and how many that are none."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, number, numbers, shown, words
from aiene.benchmark.report.charts.curves import froc
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.source import Source

_RATES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")


def detection(source: Source) -> Section:
    """The chapter."""
    models = [model for model in source.run if model.get("detection")]
    if not models:
        return Section("detection", "Detection of nodes", (Text("No model gave nodes."),))
    iou = dig(models[0], "detection", "iou_threshold")
    said = (
        "A node is found where a predicted node overlaps it by an intersection over union of at least "
        f"{shown(iou, 'plain')}; nodes are matched one to one. A split is a node of the truth met by several "
        "predicted nodes, a merge a predicted node that meets several of the truth."
    )
    items: list[Item] = [Text(said), _overall(models), _by_size(models), _froc_table(models)]
    chart = froc(source)
    items += [chart] if chart is not None else []
    return Section("detection", "Detection of nodes", tuple(items))


def _overall(models: list[dict[str, Any]]) -> Table:
    head = (
        *("Model", "True / found / matched / false nodes", "Sensitivity", "Precision", "F1"),
        *("False nodes a case", "Splits", "Merges"),
    )
    builder = TableBuilder("All nodes, 95 % interval by bootstrap over patients", head)
    for model in models:
        name, found = model["name"], model["detection"]
        builder.row(
            words(name),
            numbers([found.get(n) for n in ("n_truth", "n_predicted", "n_matched", "n_false")]),
            builder.estimate(name, "sensitivity", found.get("sensitivity")),
            builder.estimate(name, "precision", found.get("precision")),
            builder.estimate(name, "F1", found.get("f1")),
            builder.estimate(name, "false nodes a case", found.get("false_per_case"), "plain"),
            number(found.get("splits"), "count"),
            number(found.get("merges"), "count"),
        )
    return builder.table()


def _by_size(models: list[dict[str, Any]]) -> Table:
    head = (
        *("Model", "Short axis", "True nodes / found", "Sensitivity", "Predicted nodes / false"),
        *("Precision", "False nodes a case"),
    )
    title = (
        "By size: sensitivity by the short axis of the node in the truth, precision and false nodes by that "
        "of the predicted node"
    )
    builder = TableBuilder(title, head)
    for model in models:
        for size in dig(model, "detection", "by_size") or []:
            who, of_size = model["name"], f"at {size.get('size_class')}"
            builder.row(
                words(model["name"]),
                words(size.get("size_class")),
                numbers([size.get("n_truth"), size.get("n_matched")]),
                builder.estimate(who, f"sensitivity {of_size}", size.get("sensitivity")),
                numbers([size.get("n_predicted"), size.get("n_false")]),
                builder.estimate(who, f"precision {of_size}", size.get("precision")),
                builder.estimate(who, f"false nodes {of_size}", size.get("false_per_case"), "plain"),
            )
    return builder.table()


def _froc_table(models: list[dict[str, Any]]) -> Table:
    title = "Sensitivity at so many false nodes per case, and its mean"
    builder = TableBuilder(title, ("Model", *_RATES, "Mean"))
    for model in models:
        curve = dig(model, "detection", "froc")
        points = [number(dig(curve, "at", place, 1)) for place in range(len(_RATES))]
        builder.row(words(model["name"]), *points, number(dig(curve, "score")))
        if dig(curve, "reason"):
            builder.missing(model["name"], "curve", str(dig(curve, "reason")))
    return builder.table()
