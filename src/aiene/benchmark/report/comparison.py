"""Report sections that compare models: each against the reference, and the ranking with its stability."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.charts import rank_stability
from aiene.benchmark.report.names import METRICS, count, equals, metric
from aiene.benchmark.report.results_reader import Source
from aiene.report.document import CellTable, Item, Section, Text
from aiene.report.formatting import TableBuilder, dig, estimate, in_words, number, numbers, shown, words

FOUND = ("better", "worse")
_OPEN = "no difference shown"
_FEWEST = 6  # patients; with fewer no permutation can give p < 0.05 (2 / 2 ** 5 = 0.0625)

Comparison = dict[str, Any]

Ranking = dict[str, Any]


def comparisons(source: Source) -> Section:
    """The chapter."""
    every = _every(source)
    if not every:
        return Section("comparisons", "Pairwise comparisons", (Text(_why_none(source)),))
    said = tuple(_by_model(every, source.reference, source.main_label))
    items: list[Item] = [Text(_how(source)), *few_patients(source), Text("What was found:", said)]
    for label in _labels(every, source.main_label):
        rows = [one for one in every if one.get("label") == label]
        items.append(_areas(rows) if rows[0].get("metric") == "auc" else _table(rows, label))
    return Section("comparisons", "Pairwise comparisons", tuple(items))


def main_sentences(source: Source) -> list[str]:
    """Whether a difference was found, for the summary: main label's Dice and the area under the ROC curve."""
    every = _every(source)
    if not every:
        return [_why_none(source)]
    told = _by_metric([one for one in every if _is_main(one, source.main_label)], source.reference)
    found = sum(one.get("verdict") in FOUND for one in every)
    which = "no difference" if not found else "a difference"
    told.append(
        f"Over every metric and label {which} was found in "
        f"{'any of ' if not found else f'{found} of '}{count(len(every), 'comparison')}."
    )
    return told


def few_patients(source: Source) -> list[Text]:
    """A warning where no test could show any difference."""
    ns = [n for one in _every(source) if (n := dig(one, "paired", "n")) is not None]
    if not ns or min(ns) >= _FEWEST:
        return []
    fewest = min(ns)
    least = min(1.0, 2 / 2**fewest) if fewest else 1.0
    return [
        Text(
            f"With {count(fewest, 'patient')} a permutation test cannot give a p value under "
            f"{shown(least, 'p')}: whatever the models are like, no difference in segmentation can be shown.",
            kind="warning",
        )
    ]


def _labels(every: list[Comparison], main: str | None) -> list[str]:
    """The labels, the main one first and what is not of segmentation last."""
    areas = {str(one.get("label")) for one in every if one.get("metric") == "auc"}
    names = {str(one.get("label")) for one in every}
    return sorted(names, key=lambda name: (name in areas, name != main, name))


def _is_main(one: Comparison, label: str | None) -> bool:
    return one.get("metric") == "auc" or (one.get("metric") == "dice" and one.get("label") == label)


def _every(source: Source) -> list[Comparison]:
    return [one for one in source.summary.get("comparisons") or [] if isinstance(one, dict)]


def _why_none(source: Source) -> str:
    if len(source.run) < 2:
        return "Fewer than two models could be run, so that nothing was compared with a reference."
    return (
        f"No other model gives figures that can be compared with those of the reference, {source.reference}."
    )


def _how(source: Source) -> str:
    return (
        f"Reference: {source.reference}. Differences are model less reference, over the same patients, with "
        "95 % intervals by bootstrap over patients. A difference counts as found where the p value of the "
        "permutation test, corrected by Holm over the models of a metric and label, is under 0.05 (areas "
        "under the ROC curve: DeLong's test, and the interval leaves 0 out). A case that failed "
        "counts as an empty prediction. Volume errors are compared by their size, whatever their sign."
    )


def _by_metric(every: list[Comparison], reference: str | None) -> list[str]:
    """One sentence for each metric and label, over the models."""
    told = []
    for name, label in dict.fromkeys((str(o.get("metric")), str(o.get("label"))) for o in every):
        rows = [o for o in every if o.get("metric") == name and o.get("label") == label]
        parts = [_found(row, name, reference) for row in rows if row.get("verdict") in FOUND]
        open_ = [str(row.get("model")) for row in rows if row.get("verdict") == "no difference shown"]
        odd = [str(row.get("model")) for row in rows if row.get("verdict") not in (*FOUND, _OPEN)]
        parts += [f"no difference from {reference} was shown for {', '.join(open_)}"] if open_ else []
        parts += [f"not comparable: {', '.join(odd)}"] if odd else []
        told.append(f"{metric(name).title}, {label}: {'; '.join(parts)}.")
    return told


def _by_model(every: list[Comparison], reference: str | None, main: str | None) -> list[str]:
    """One sentence for each label and model, over the metrics."""
    told = []
    for label in _labels(every, main):
        rows = [one for one in every if one.get("label") == label]
        for model in dict.fromkeys(str(row.get("model")) for row in rows):
            of_model = [row for row in rows if row.get("model") == model]
            told.append(f"{label}, {model}: {_verdicts(of_model, reference)}.")
    return told


def _verdicts(rows: list[Comparison], reference: str | None) -> str:
    groups: dict[str, list[str]] = {}
    for row in rows:
        groups.setdefault(str(row.get("verdict")), []).append(metric(str(row.get("metric"))).title)
    if list(groups) == [_OPEN] and len(rows) > 1:
        return f"no difference from {reference} shown in any metric"
    said = {verdict: f"{verdict} than {reference} in" for verdict in FOUND}
    said |= {_OPEN: f"no difference from {reference} shown in", "not comparable": "not comparable in"}
    order = [*(v for v in said if v in groups), *(v for v in groups if v not in said)]
    return "; ".join(f"{said.get(verdict, verdict)} {', '.join(groups[verdict])}" for verdict in order)


def _found(row: Comparison, name: str, reference: str | None) -> str:
    difference = row.get("difference") or dig(row, "paired", "mean_difference")
    return (
        f"{row.get('model')} is {row.get('verdict')} than {reference}: difference "
        f"{in_words(difference, metric(name).kind)}, p {equals(row.get('p_holm'))}"
    )


def _table(rows: list[Comparison], label: str) -> CellTable:
    head = (
        *("Metric", "Model", "Patients", "Mean difference", "Probability of superiority", "p Wilcoxon"),
        *("p permutation", "p Holm", "Verdict"),
    )
    builder = TableBuilder(f"{label}: model less reference", head)
    order = {name: place for place, name in enumerate(METRICS)}
    for row in sorted(rows, key=lambda one: order.get(str(one.get("metric")), len(order))):
        shown_as = metric(str(row.get("metric")))
        who, paired = str(row.get("model")), row.get("paired")
        builder.row(
            words(shown_as.title),
            words(row.get("model")),
            number(dig(paired, "n"), "count"),
            builder.estimate(
                who, f"difference in {shown_as.title}", dig(paired, "mean_difference"), shown_as.kind
            ),
            builder.estimate(who, f"superiority in {shown_as.title}", dig(paired, "superiority")),
            number(dig(paired, "wilcoxon_p"), "p"),
            number(dig(paired, "permutation_p"), "p"),
            number(row.get("p_holm"), "p"),
            words(row.get("verdict")),
        )
        if dig(paired, "reason"):
            builder.missing(who, f"comparison in {shown_as.title}", str(dig(paired, "reason")))
    return builder.table()


def _areas(rows: list[Comparison]) -> CellTable:
    title = "Area under the ROC curve of extranodal extension on the truth's nodes: model less reference"
    builder = TableBuilder(title, ("Model", "Nodes", "Difference", "p DeLong", "p Holm", "Verdict"))
    for row in rows:
        builder.row(
            words(row.get("model")),
            number(row.get("n"), "count"),
            builder.estimate(str(row.get("model")), "difference", row.get("difference")),
            number(row.get("p_delong"), "p"),
            number(row.get("p_holm"), "p"),
            words(row.get("verdict")),
        )
    return builder.table()


# Ranking


def ranks(source: Source) -> Section:
    """The chapter."""
    every = [one for one in source.summary.get("ranking") or [] if len(one.get("models") or []) > 1]
    if not every:
        said = "Fewer than two models gave a segmentation, so that there is no order of models."
        return Section("ranks", "Ranks", (Text(said),))
    label = source.main_label
    order = sorted({str(one.get("label")) for one in every}, key=lambda one: (one != label, one))
    items: list[Item] = [
        Text(
            "Ranks by the mean over patients; the range holds the middle 95 % of the ranks over resamples of "
            "the patients. Kendall's tau compares the ranks of resamples with those of all patients: 1 is a "
            "firm order, 0 chance. A case that failed counts as an empty prediction."
        )
    ]
    for name in order:
        of_label = [one for one in every if one.get("label") == name]
        items += _dice(of_label, name)
        items.append(_others(of_label, name))
    return Section("ranks", "Ranks", tuple(items))


def _dice(of_label: list[Ranking], name: str) -> list[Item]:
    one = next((one for one in of_label if one.get("metric") == "dice"), None)
    if one is None:
        return []
    items: list[Item] = [_order(one, name)]
    chart = rank_stability(one)
    items += [chart] if chart is not None else []
    items += [Text(_groups(one.get("critical_difference"), name)), _superiority(one, name)]
    return items


def _order(one: Ranking, name: str) -> CellTable:
    firm = in_words(one.get("kendall_tau"), "plain")
    title = f"Ranks by Dice of {name}, over {count(int(one.get('n') or 0), 'patient')} ; Kendall's tau {firm}"
    builder = TableBuilder(title, ("Rank", "Model", "Range of ranks", "Mean Dice", "Mean rank"))
    for model in one["models"]:
        builder.row(
            number(model.get("rank"), "count"),
            words(model.get("model")),
            numbers([model.get("rank_low"), model.get("rank_high")], between=" to "),
            number(model.get("mean")),
            number(model.get("mean_rank"), "plain"),
        )
    if one.get("reason"):
        builder.missing("all models", "ranks", str(one["reason"]))
    return builder.table()


def _groups(found: Any, name: str) -> str:
    groups = dig(found, "groups") or []
    difference, p = dig(found, "critical_difference"), dig(found, "friedman_p")
    if difference is None:
        return f"Dice of {name}, critical difference: {dig(found, 'reason') or 'not given'}."
    told = [", ".join(group) for group in groups if len(group) > 1]
    said = (
        f"Dice of {name}: Friedman's test p {equals(p)}; "
        f"mean ranks that differ by less than {shown(difference, 'plain')} (Nemenyi) cannot be told apart"
    )
    return said + (f": {' | '.join(told)}." if told else ". All models can be told apart.")


def _superiority(one: Ranking, name: str) -> CellTable:
    found = one.get("superiority")
    models = list(dig(found, "models") or [])
    title = (
        f"Dice of {name}: share of patients in whom the model of the row is better than that of the column"
    )
    builder = TableBuilder(title, ("Model", *models))
    for line, model in enumerate(models):
        cells = [number(dig(found, "probability", line, column), "plain") for column in range(len(models))]
        builder.row(words(model), *cells)
    return builder.table()


def _others(of_label: list[Ranking], name: str) -> CellTable:
    models = [model.get("model") for model in of_label[0]["models"]]
    head = ("Model", *(metric(str(one.get("metric"))).title for one in of_label))
    builder = TableBuilder(f"{name}: rank by each metric, range under it", head)
    for model in models:
        cells = []
        for one in of_label:
            found: Ranking = next((m for m in one["models"] if m.get("model") == model), {})
            rank = {
                "value": found.get("rank"),
                "low": found.get("rank_low"),
                "high": found.get("rank_high"),
            }
            cells.append(estimate(rank, "count"))
        builder.row(words(model), *cells)
    return builder.table()
