"""The order of the models, and how firm it is."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, estimate, in_words, number, numbers, shown, words
from aiene.benchmark.report.charts.ranks import rank_stability
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.sections.wording import count, equals, metric
from aiene.benchmark.report.source import Source

Ranking = dict[str, Any]


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


def _order(one: Ranking, name: str) -> Table:
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


def _superiority(one: Ranking, name: str) -> Table:
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


def _others(of_label: list[Ranking], name: str) -> Table:
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
