"""Report sections on the models' performance: segmentation, detection, ENE classification, resources."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.results_reader import METRICS, Source, figures_of, metric
from aiene.report.document import Cell, CellTable, Item, Section, Text
from aiene.report.formatting import NumberKind, TableBuilder, dig, estimate, number, numbers, shown, words

_SHOWN = tuple(name for name in METRICS if name != "auc")
_Figures = tuple[tuple[str, str, NumberKind], ...]
"""What each column of estimates is called where it is missing, where its figure lies, and how it is shown."""
_FROC_RATES = ("1/8", "1/4", "1/2", "1", "2", "4", "8")
_ENE_TITLE = "Extranodal extension"
_TRACKS = {
    "on_truth": "On the truth's nodes: the classifier alone, on the masks of the ground truth",
    "end_to_end": "End to end: the model finds the nodes itself; one that it missed counts as judged wrongly",
}
_NODE_FIGURES: _Figures = (
    ("sensitivity", "sensitivity", "ratio"),
    ("precision", "precision", "ratio"),
    ("F1", "f1", "ratio"),
    ("false nodes a case", "false_per_case", "plain"),
    ("Dice of single nodes", "node_dice", "ratio"),
    ("panoptic quality", "panoptic_quality", "ratio"),
)
_ENE_FIGURES: _Figures = (
    ("AUC (DeLong)", "auc", "ratio"),
    ("AUC (bootstrap)", "auc_clustered", "ratio"),
    ("average precision", "average_precision", "ratio"),
    ("Brier", "brier", "ratio"),
    ("calibration slope", "calibration.slope", "plain"),
    ("calibration in the large", "calibration.intercept", "plain"),
)
_OPERATING_FIGURES: _Figures = (
    ("sensitivity", "sensitivity", "ratio"),
    ("specificity", "specificity", "ratio"),
    ("PPV", "ppv", "ratio"),
    ("NPV", "npv", "ratio"),
)
_PATIENT_FIGURES: _Figures = (
    ("any ENE, sensitivity", "any_ene.sensitivity", "ratio"),
    ("any ENE, specificity", "any_ene.specificity", "ratio"),
    ("agreement", "any_agreement", "ratio"),
    ("count exact", "count_exact", "ratio"),
    ("count within one", "count_within_one", "ratio"),
    ("linear kappa", "kappa_linear", "ratio"),
    ("quadratic kappa", "kappa_quadratic", "ratio"),
)
Scored = list[tuple[str, dict[str, Any]]]
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
    head = ("Model", "n", *(metric(name).title for name in _SHOWN))
    title = f"{label}: {which} over all cases, 95 % interval by bootstrap over patients"
    builder = TableBuilder(title, head)
    for model in source.segmenters:
        figures = dig(model, "segmentation", label)
        builder.row(
            words(model["name"]),
            number(dig(figures, "dice", "n"), "count"),
            *(
                builder.estimate(
                    model["name"], metric(name).title, dig(figures, name, which), metric(name).kind
                )
                for name in _SHOWN
            ),
        )
    return builder.table()


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
    items: list[Item] = [Text(said), _overall(models), _by_size(models), _froc_table(models)]
    items += figures_of("detection", source)
    return Section("detection", "Detection of nodes", tuple(items))


def _overall(models: list[dict[str, Any]]) -> CellTable:
    head = (
        *("Model", "True / found / matched / false nodes", "Sensitivity", "Precision", "F1"),
        *("False nodes a case", "Dice of single nodes", "Panoptic quality", "Splits / merges"),
    )
    builder = TableBuilder("All nodes, 95 % interval by bootstrap over patients", head)
    for model in models:
        name, found = model["name"], model["detection"]
        builder.row(
            words(name),
            numbers([found.get(n) for n in ("n_truth", "n_predicted", "n_matched", "n_false")]),
            *_estimates(builder, name, found, _NODE_FIGURES),
            numbers([found.get("splits"), found.get("merges")]),
        )
    return builder.table()


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
    having: Scored = [
        (model["name"], found)
        for model in source.run
        if (found := dig(model, "classification", track)) is not None
    ]
    scored = [(name, found) for name, found in having if found.get("n")]
    items: list[Item] = []
    if scored:
        items += [_areas(scored, title), _operating(scored), _patients(scored)]
        items += figures_of("classification", source, track)
    points = tuple(
        f"{name}: {found.get('reason') or 'no figures'}." for name, found in having if not found.get("n")
    )
    if points:
        items.append(Text(f"{title.split(':')[0]}, without figures:", points, "note"))
    return items


def _areas(scored: Scored, title: str) -> CellTable:
    head = (
        *("Model", "Nodes / with ENE / patients", "AUC (DeLong)", "AUC (bootstrap)", "Average precision"),
        *("Brier", "Calibration slope", "Calibration in the large", "Nodes missed / not judged"),
        "False nodes called ENE",
    )
    builder = TableBuilder(f"{title}; 95 % intervals", head)
    for name, found in scored:
        builder.row(
            words(name),
            numbers([found.get(n) for n in ("n", "n_positive", "n_patients")]),
            *_estimates(builder, name, found, _ENE_FIGURES),
            numbers([found.get(n) for n in ("missed", "not_judged")]),
            number(found.get("false_nodes_called_ene"), "count"),
        )
    return builder.table()


def _operating(scored: Scored) -> CellTable:
    head = ("Model", "Threshold", "TP / FP / TN / FN", "Sensitivity", "Specificity", "PPV", "NPV")
    title = "At a threshold (positive: probability over it), 95 % intervals by Wilson's method"
    builder = TableBuilder(title, head)
    for name, found in scored:
        for point in found.get("operating") or []:
            builder.row(
                words(name),
                number(point.get("threshold"), "plain"),
                numbers([point.get(n) for n in ("tp", "fp", "tn", "fn")]),
                *_estimates(builder, name, point, _OPERATING_FIGURES),
            )
    return builder.table()


def _patients(scored: Scored) -> CellTable:
    head = (
        *("Model", "Patients / left out", "Any ENE: sensitivity", "Any ENE: specificity"),
        *("Any ENE: agreement", "Count exact", "Count within one", "Kappa, linear", "Kappa, quadratic"),
    )
    title = "By patient, over those all of whose nodes are labelled: any node with ENE, and how many"
    builder = TableBuilder(title, head)
    for name, found in scored:
        people = found.get("patients")
        if dig(people, "reason"):
            builder.missing(name, "figures by patient", str(dig(people, "reason")))
        builder.row(
            words(name),
            numbers([dig(people, "n"), dig(people, "left_out")]),
            *_estimates(builder, name, people, _PATIENT_FIGURES),
        )
    return builder.table()


def _estimates(builder: TableBuilder, model: str, found: Any, figures: _Figures) -> list[Cell]:
    return [builder.estimate(model, said, dig(found, *at.split(".")), kind) for said, at, kind in figures]


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
    items: list[Item] = [Text(said), _times(source), _sizes(source)]
    items += figures_of("resources", source, source.main_label) if source.main_label else []
    return Section("resources", "Time and memory", tuple(items))


def _times(source: Source) -> CellTable:
    head = ("Model", *(step.capitalize() for step in _TIMED_STEPS), "CPU time")
    builder = TableBuilder("Seconds of a case: median, 95 % interval under it", head)
    for model in source.run:
        spent = dig(model, "resources", "seconds")
        cells = [
            builder.estimate(model["name"], f"seconds of {step}", dig(spent, step, "median"), "seconds")
            for step in _TIMED_STEPS
        ]
        cpu = dig(model, "resources", "cpu_seconds", "total", "median")
        builder.row(words(model["name"]), *cells, builder.estimate(model["name"], "CPU time", cpu, "seconds"))
    return builder.table()


def _sizes(source: Source) -> CellTable:
    head = (
        *("Model", "Peak memory (MiB)", "Mean of cases (MiB)", "Peak GPU memory (MiB)", "Parameters"),
        *("Size (bytes)", "Operations of an inference (FLOPs)"),
    )
    builder = TableBuilder("Memory and size", head)
    for model in source.run:
        used = model.get("resources")
        builder.row(
            words(model["name"]),
            *(number(dig(used, "peak_rss_mib", which), "mib") for which in ("max", "mean")),
            number(dig(used, "peak_gpu_mib", "max"), "mib"),
            *(number(model.get(name), "large") for name in ("parameters", "size_bytes", "flops")),
        )
    return builder.table()
