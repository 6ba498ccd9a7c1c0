"""Report sections on the models' performance: segmentation, detection, ENE classification, resources."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.results_reader import (
    METRICS,
    FigureColumn,
    ModelFigures,
    Source,
    figures_of,
    metric,
    models_table,
)
from aiene.report.document import CellTable, Item, Section, Text
from aiene.report.formatting import TableBuilder, dig, estimate, number, numbers, shown, words

_SHOWN = tuple(name for name in METRICS if name != "auc")
_FROC_RATES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
_ENE_TITLE = "Extranodal extension"
_TRACKS = {
    "on_truth": "On the truth's nodes: the classifier alone, on the masks of the ground truth",
    "end_to_end": "End to end: the model finds the nodes itself; one that it missed counts as judged wrongly",
}
_OF_NODES = (
    FigureColumn("True / found / matched / false nodes", ("n_truth", "n_predicted", "n_matched", "n_false")),
    FigureColumn("Sensitivity", "sensitivity"),
    FigureColumn("Precision", "precision"),
    FigureColumn("F1", "f1"),
    FigureColumn("False nodes a case", "false_per_case", "plain"),
    FigureColumn("Dice of single nodes", "node_dice"),
    FigureColumn("Panoptic quality", "panoptic_quality"),
    FigureColumn("Splits / merges", ("splits", "merges")),
)
_OF_ENE = (
    FigureColumn("Nodes / with ENE / patients", ("n", "n_positive", "n_patients")),
    FigureColumn("AUC (DeLong)", "auc"),
    FigureColumn("AUC (bootstrap)", "auc_clustered"),
    FigureColumn("Average precision", "average_precision"),
    FigureColumn("Brier", "brier"),
    FigureColumn("Calibration slope", "calibration.slope", "plain"),
    FigureColumn("Calibration in the large", "calibration.intercept", "plain"),
    FigureColumn("Nodes missed / not judged", ("missed", "not_judged")),
    FigureColumn("False nodes called ENE", "false_nodes_called_ene", "count"),
)
_OF_A_THRESHOLD = (
    FigureColumn("Threshold", "threshold", "plain"),
    FigureColumn("TP / FP / TN / FN", ("tp", "fp", "tn", "fn")),
    FigureColumn("Sensitivity", "sensitivity"),
    FigureColumn("Specificity", "specificity"),
    FigureColumn("PPV", "ppv"),
    FigureColumn("NPV", "npv"),
)
_OF_PATIENTS = (
    FigureColumn("Patients / left out", ("n", "left_out")),
    FigureColumn("Any ENE: sensitivity", "any_ene.sensitivity", what="any ENE, sensitivity"),
    FigureColumn("Any ENE: specificity", "any_ene.specificity", what="any ENE, specificity"),
    FigureColumn("Any ENE: agreement", "any_agreement", what="agreement"),
    FigureColumn("Count exact", "count_exact"),
    FigureColumn("Count within one", "count_within_one"),
    FigureColumn("Kappa, linear", "kappa_linear", what="linear kappa"),
    FigureColumn("Kappa, quadratic", "kappa_quadratic", what="quadratic kappa"),
)
_OF_SIZES = (
    FigureColumn("Peak memory (MiB)", "resources.peak_rss_mib.max", "mib"),
    FigureColumn("Mean of cases (MiB)", "resources.peak_rss_mib.mean", "mib"),
    FigureColumn("Peak GPU memory (MiB)", "resources.peak_gpu_mib.max", "mib"),
    FigureColumn("Parameters", "parameters", "large"),
    FigureColumn("Size (bytes)", "size_bytes", "large"),
    FigureColumn("Operations of an inference (FLOPs)", "flops", "large"),
)

_TIMED_STEPS = ("load", "preprocess", "inference", "postprocess", "total")


def segmentation(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = []
    if not source.segmenters:
        items.append(Text("No model gave a segmentation, so there is nothing to show here."))
    for label in source.labels:
        items += [_table(source, label, "mean"), _table(source, label, "median")]
        items += figures_of("segmentation", source, label)
    missing = [label for label in ("GTVp", "GTVn") if source.segmenters and label not in source.labels]
    if missing:
        items.append(Text(f"{' and '.join(missing)} is in no ground truth, so it has no figures."))
    return Section("segmentation", "Segmentation", tuple(items))


def _table(source: Source, label: str, which: str) -> CellTable:
    shown_as = [(name, metric(name)) for name in _SHOWN]
    columns = [FigureColumn(one.title, f"{name}.{which}", one.kind) for name, one in shown_as]
    title = f"{label}: {which} over all cases, 95 % interval by bootstrap over patients"
    rows = [(model["name"], dig(model, "segmentation", label)) for model in source.segmenters]
    return models_table(title, [FigureColumn("n", "dice.n", "count"), *columns], rows)


# Detection


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
    title = "All nodes, 95 % interval by bootstrap over patients"
    overall = models_table(title, _OF_NODES, [(model["name"], model["detection"]) for model in models])
    items: list[Item] = [Text(said), overall, _by_size(models), _froc_table(models)]
    items += figures_of("detection", source)
    return Section("detection", "Detection of nodes", tuple(items))


def _by_size(models: list[dict[str, Any]]) -> CellTable:
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


def _froc_table(models: list[dict[str, Any]]) -> CellTable:
    title = "Sensitivity at so many false nodes per case, and its mean"
    builder = TableBuilder(title, ("Model", *_FROC_RATES, "Mean"))
    for model in models:
        curve = dig(model, "detection", "froc")
        points = [number(dig(curve, "at", place, 1)) for place in range(len(_FROC_RATES))]
        builder.row(words(model["name"]), *points, estimate(dig(curve, "interval")))
        if dig(curve, "reason"):
            builder.missing(model["name"], "curve", str(dig(curve, "reason")))
    return builder.table()


# ENE classification


def classification(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = []
    if not dig(source.summary, "data", "nodes_labelled"):
        said = "No node of the ground truth has a label of extranodal extension: give --ene-csv to judge it."
        items.append(Text(said))
    for track, title in _TRACKS.items():
        items += _track(source, track, title)
    if not items:
        items.append(Text("No model gave a probability of extranodal extension."))
    return Section("classification", _ENE_TITLE, tuple(items))


def _track(source: Source, track: str, title: str) -> list[Item]:
    having: ModelFigures = [
        (model["name"], found)
        for model in source.run
        if (found := dig(model, "classification", track)) is not None
    ]
    scored = [(name, found) for name, found in having if found.get("n")]
    items: list[Item] = []
    if scored:
        points = [(name, point) for name, found in scored for point in found.get("operating") or []]
        at = "At a threshold (positive: probability over it), 95 % intervals by Wilson's method"
        by_patient = "By patient, over those all of whose nodes are labelled: any node with ENE, and how many"
        people = [(name, found.get("patients")) for name, found in scored]
        items += [
            models_table(f"{title}; 95 % intervals", _OF_ENE, scored),
            models_table(at, _OF_A_THRESHOLD, points),
            models_table(by_patient, _OF_PATIENTS, people, whole="figures by patient"),
        ]
        items += figures_of("classification", source, track)
    without = tuple(
        f"{name}: {found.get('reason') or 'no figures'}." for name, found in having if not found.get("n")
    )
    if without:
        items.append(Text(f"{title.split(':')[0]}, without figures:", without, "note"))
    return items


# Time, memory and size


def resources(source: Source) -> Section:
    """The chapter."""
    if not source.run:
        return Section("resources", "Time and memory", (Text("No model was run."),))
    repeats = max((dig(m, "resources", "inference_repeats") or 1 for m in source.run), default=1)
    machine = source.summary["machine"]
    gpu = f" ({machine['gpu']})" if isinstance(machine.get("gpu"), str) and machine["gpu"] else ""
    often = "once" if repeats == 1 else f"{repeats} times"
    said = (
        f"Measured on {machine.get('cpu') or 'a processor of unknown name'}, "
        f"{machine.get('cores')} cores, {machine.get('memory_gib')} GiB, "
        f"device {machine.get('device') or 'cpu'}{gpu}. The first inference of a "
        f"process is a warm-up and not timed; inference was timed {often} a case."
    )
    steps = [
        FigureColumn(step.capitalize(), f"seconds.{step}.median", "seconds", f"seconds of {step}")
        for step in _TIMED_STEPS
    ]
    times = models_table(
        "Seconds of a case: median, 95 % interval under it",
        [*steps, FigureColumn("CPU time", "cpu_seconds.total.median", "seconds")],
        [(model["name"], model.get("resources")) for model in source.run],
    )
    sizes = models_table("Memory and size", _OF_SIZES, [(model["name"], model) for model in source.run])
    items: list[Item] = [Text(said), times, sizes]
    items += figures_of("resources", source, source.main_label) if source.main_label else []
    return Section("resources", "Time and memory", tuple(items))
