"""How well the models tell nodes with extranodal extension."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, number, numbers, words
from aiene.benchmark.report.charts.calibration import calibration
from aiene.benchmark.report.charts.curves import roc
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.source import Source

_TITLE = "Extranodal extension"
_TRACKS = {
    "on_truth": "On the truth's nodes: the classifier alone, on the masks of the ground truth",
    "end_to_end": "End to end: the model finds the nodes itself; one that it missed counts as probability 0",
}
_RATES = ("sensitivity", "specificity", "ppv", "npv")

Judged = list[tuple[str, dict[str, Any]]]


def classification(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = []
    labelled = dig(source.summary, "data", "nodes_labelled")
    if not labelled:
        items.append(
            Text(
                "No node of the ground truth has a label of extranodal extension: give --ene-csv to judge it."
            )
        )
    for track, title in _TRACKS.items():
        items += _track(source, track, title)
    if not items:
        items.append(Text("No model gave a probability of extranodal extension."))
    return Section("classification", _TITLE, tuple(items))


def _track(source: Source, track: str, title: str) -> list[Item]:
    having: Judged = [
        (model["name"], found)
        for model in source.run
        if (found := dig(model, "classification", track)) is not None
    ]
    judged = [(name, found) for name, found in having if found.get("n")]
    items: list[Item] = []
    if judged:
        items += [_areas(judged, title), _operating(judged), _patients(judged)]
        items += [c for c in (roc(source, track), calibration(source, track)) if c is not None]
    points = tuple(
        f"{name}: {found.get('reason') or 'no figures'}." for name, found in having if not found.get("n")
    )
    if points:
        items.append(Text(f"{title.split(':')[0]}, without figures:", points, "note"))
    return items


def _areas(judged: Judged, title: str) -> Table:
    head = (
        *("Model", "Nodes / with ENE / patients", "AUC (DeLong)", "AUC (bootstrap)", "Average precision"),
        *("Brier", "Calibration slope", "Calibration in the large", "Nodes not judged"),
        "False nodes called ENE",
    )
    builder = TableBuilder(f"{title}; 95 % intervals", head)
    for name, found in judged:
        fit = found.get("calibration")
        builder.row(
            words(name),
            numbers([found.get(n) for n in ("n", "n_positive", "n_patients")]),
            builder.estimate(name, "AUC (DeLong)", found.get("auc")),
            builder.estimate(name, "AUC (bootstrap)", found.get("auc_clustered")),
            builder.estimate(name, "average precision", found.get("average_precision")),
            builder.estimate(name, "Brier", found.get("brier")),
            builder.estimate(name, "calibration slope", dig(fit, "slope"), "plain"),
            builder.estimate(name, "calibration in the large", dig(fit, "intercept"), "plain"),
            number(found.get("not_judged"), "count"),
            number(found.get("false_nodes_called_ene"), "count"),
        )
    return builder.table()


def _operating(judged: Judged) -> Table:
    head = ("Model", "Threshold", "TP / FP / TN / FN", "Sensitivity", "Specificity", "PPV", "NPV")
    title = "At a threshold (positive: probability over it), 95 % intervals by Wilson's method"
    builder = TableBuilder(title, head)
    for name, found in judged:
        for point in found.get("operating") or []:
            builder.row(
                words(name),
                number(point.get("threshold"), "plain"),
                numbers([point.get(n) for n in ("tp", "fp", "tn", "fn")]),
                *(builder.estimate(name, _said(rate), point.get(rate)) for rate in _RATES),
            )
    return builder.table()


def _patients(judged: Judged) -> Table:
    head = (
        *("Model", "Patients / left out", "Any ENE: sensitivity", "Any ENE: specificity"),
        *("Any ENE: agreement", "Count exact", "Count within one", "Kappa, linear", "Kappa, quadratic"),
    )
    title = "By patient, over those all of whose nodes are labelled: any node with ENE, and how many"
    builder = TableBuilder(title, head)
    for name, found in judged:
        people = found.get("patients")
        if dig(people, "reason"):
            builder.missing(name, "figures by patient", str(dig(people, "reason")))
        builder.row(
            words(name),
            numbers([dig(people, "n"), dig(people, "left_out")]),
            *(
                builder.estimate(name, f"any ENE, {rate}", dig(people, "any_ene", rate))
                for rate in ("sensitivity", "specificity")
            ),
            *(
                builder.estimate(name, said, dig(people, key))
                for key, said in (
                    ("any_agreement", "agreement"),
                    ("count_exact", "count exact"),
                    ("count_within_one", "count within one"),
                    ("kappa_linear", "linear kappa"),
                    ("kappa_quadratic", "quadratic kappa"),
                )
            ),
        )
    return builder.table()


def _said(rate: str) -> str:
    return rate.upper() if rate in ("ppv", "npv") else rate
