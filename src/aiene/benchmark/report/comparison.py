"""Report sections that compare models: each against the reference, and the ranking with its stability."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.results_reader import (
    METRICS,
    Source,
    count,
    endpoint_title,
    equals,
    figures_of,
    metric,
)
from aiene.report.document import Cell, CellTable, Item, Section, Text
from aiene.report.formatting import TableBuilder, dig, estimate, in_words, number, shown, words

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
    first = [one for one in every if one.get("primary")]
    second = [one for one in every if not one.get("primary")]
    items: list[Item] = [Text(_how(source)), *few_patients(source)]
    items += [_table(first, "Primary endpoint"), _all_pairs(source)] if first else []
    said = tuple(_by_model(second, source.reference, source.main_label))
    items += [Text("Secondary endpoints, which decide nothing on their own:", said)] if said else []
    for label in _labels(second, source.main_label):
        rows = [one for one in second if one.get("label") == label]
        items.append(_table(rows, f"Secondary, {label.replace('_', ' ')}"))
    return Section("comparisons", "Pairwise comparisons", tuple(items))


def verdict(source: Source) -> list[Item]:
    """What the report opens with: the primary endpoint, each model's value, and who is better."""
    primary = source.summary.get("primary") or {}
    if not primary.get("metric"):
        return []
    title = endpoint_title(str(primary["metric"]), str(primary.get("label") or ""))
    if primary.get("reason"):
        return [Text(f"Primary endpoint: {title}. {primary['reason']}.", kind="warning")]
    items: list[Item] = [Text(f"Primary endpoint: {title}. {_counted(primary)} {_lost(source)}".strip())]
    first = [one for one in _every(source) if one.get("primary")]
    points = tuple(_primary_sentence(one, source.reference, primary) for one in first)
    corrected = f" (p corrected by Holm over {len(points)} models)" if len(points) > 1 else ""
    against = f"Against {source.reference}, the reference{corrected}:"
    items.append(Text(against, points) if points else Text(_why_none(source)))
    builder = TableBuilder(f"Primary endpoint: {title}", ("Model", "Value"))
    kind = metric(str(primary["metric"])).kind
    for model in primary.get("models") or []:
        who = str(model.get("model"))
        builder.row(words(who), builder.estimate(who, title, model.get("value"), kind))
    rest = [one for one in _every(source) if not one.get("primary")]
    found = sum(one.get("verdict") in FOUND for one in rest)
    said = "Everything else in this report is secondary"
    if rest:
        said += (
            f": of {count(len(rest), 'comparison')} there, a difference was found in {found or 'none'}, "
            "after Holm's correction over all of them together"
        )
    return [*items, builder.table(), Text(f"{said}.")]


def _counted(primary: dict[str, Any]) -> str:
    cases, patients = int(primary.get("cases") or 0), int(primary.get("patients") or 0)
    said = f"Counted: {count(cases, 'case')} of {count(patients, 'patient')}"
    without = primary.get("without_label")
    if without is None:
        said += f", {count(int(primary.get('nodes') or 0), 'true node')}"
    elif without:
        said += f", {without} of them without {primary.get('label')}, where only an empty prediction is right"
    return f"{said}. A case without a prediction counts as the worst that can be."


def _lost(source: Source) -> str:
    failed = [(str(model["name"]), dig(model, "cases", "failed")) for model in source.run]
    lost = ", ".join(f"{name} {number}" for name, number in failed if number)
    return f"Cases without a prediction: {lost}." if lost else ""


def _primary_sentence(one: Comparison, reference: str | None, primary: dict[str, Any]) -> str:
    kind = metric(str(one.get("metric"))).kind
    said = {
        "better": f"is better than {reference}",
        "worse": f"is worse than {reference}",
        _OPEN: f"no difference from {reference} was shown",
    }.get(str(one.get("verdict")), f"is not comparable with {reference}")
    text = f"{one.get('model')}: {said}; difference {in_words(one.get('difference'), kind)}"
    text += f", p {equals(one.get('p_holm'))}"
    equal = one.get("equivalence")
    if equal is None or one.get("verdict") in FOUND:
        return f"{text}."
    between, margin = in_words(dig(equal, "interval"), kind), shown(primary.get("margin"), kind)
    if dig(equal, "equivalent"):
        return f"{text}; equal within {margin} (90 % interval {between}, p {equals(dig(equal, 'p'))})."
    return f"{text}; nor was it shown that both are equal within {margin} (90 % interval {between})."


def _all_pairs(source: Source) -> CellTable:
    """Every pair of models by the primary endpoint."""
    name = dig(source.summary, "primary", "endpoint")
    title = "Primary endpoint, every pair of models; those of other endpoints are in the summary (pairs)"
    builder = TableBuilder(title, ("Model", "Other", "Difference", "p", "p Holm over pairs", "Verdict"))
    for row in source.summary.get("pairs") or []:
        if row.get("endpoint") != name:
            continue
        who = f"{row.get('model')} and {row.get('reference')}"
        kind = metric(str(row.get("metric"))).kind
        builder.row(
            words(row.get("model")),
            words(row.get("reference")),
            builder.estimate(who, "difference", row.get("difference"), kind),
            number(row.get("p"), "p"),
            number(row.get("p_all_pairs"), "p"),
            words(row.get("verdict_of_pair")),
        )
    return builder.table()


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
    names = {str(one.get("label")) for one in every}
    return sorted(names, key=lambda name: (name.startswith("ENE"), name != main, name))


def _every(source: Source) -> list[Comparison]:
    return [one for one in source.summary.get("comparisons") or [] if isinstance(one, dict)]


def _why_none(source: Source) -> str:
    if len(source.run) < 2:
        return "Fewer than two models could be run, so nothing was compared with a reference."
    return (
        f"No other model gives figures that can be compared with those of the reference, {source.reference}."
    )


def _how(source: Source) -> str:
    return (
        f"Reference: {source.reference}. Differences are model less reference, over the same patients, with "
        "95 % intervals by bootstrap over patients. p: permutation test (signs of the patients' "
        "differences); for areas under the ROC curve and free-response scores, the bootstrap. A difference "
        "counts as found where p, corrected by Holm, is under 0.05: the primary endpoint's over its models, "
        "all secondary ones together over endpoints and models. Every usable case counts for every model; "
        "one without a prediction counts as the worst that can be. Volume errors are compared by their size."
    )


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


def _table(rows: list[Comparison], title: str) -> CellTable:
    head = (
        *("Metric", "Model", "Rows", "Difference", "Probability of superiority"),
        *("p Wilcoxon", "p", "p Holm", "Verdict"),
    )
    builder = TableBuilder(f"{title}: model less reference", head)
    order = {name: place for place, name in enumerate(METRICS)}
    for row in sorted(rows, key=lambda one: order.get(str(one.get("metric")), len(order))):
        shown_as = metric(str(row.get("metric")))
        who, paired = str(row.get("model")), row.get("paired")
        builder.row(
            words(shown_as.title),
            words(row.get("model")),
            number(row.get("n"), "count"),
            builder.estimate(who, f"difference in {shown_as.title}", row.get("difference"), shown_as.kind),
            builder.estimate(who, f"superiority in {shown_as.title}", dig(paired, "superiority")),
            number(dig(paired, "wilcoxon_p"), "p"),
            number(row.get("p"), "p"),
            number(row.get("p_holm"), "p"),
            words(row.get("verdict")),
        )
        if dig(paired, "reason"):
            builder.missing(who, f"comparison in {shown_as.title}", str(dig(paired, "reason")))
    return builder.table()


# Ranking


_SCHEMES = {"mean_then_rank": "mean", "rank_then_mean": "mean of the patients' ranks", "value": "value"}


def ranks(source: Source) -> Section:
    """The chapter."""
    every = [one for one in source.summary.get("ranking") or [] if len(one.get("models") or []) > 1]
    if not every:
        said = "Fewer than two models gave a segmentation, so the models cannot be ranked."
        return Section("ranks", "Ranks", (Text(said),))
    primary = dig(source.summary, "primary", "endpoint")
    items: list[Item] = [
        Text(
            "Two schemes for means over patients: the mean itself, and the mean of each model's rank in "
            "every patient; where they disagree there is no firm order. The range holds the middle 95 % of "
            "the ranks over resamples of the patients. Kendall's tau compares the ranks of resamples with "
            "those of all patients: 1 is a firm order, 0 chance. A case without a prediction counts as the "
            "worst."
        )
    ]
    first = [one for one in every if one.get("endpoint") == primary]
    items += [*(_of_primary(source, first) if first else []), _others(every)]
    return Section("ranks", "Ranks", tuple(items))


def _of_primary(source: Source, schemes: list[Ranking]) -> list[Item]:
    one = schemes[0]
    title = endpoint_title(str(one.get("metric")), str(one.get("label")))
    charts = [chart for scheme in schemes for chart in figures_of("ranks", source, str(scheme.get("by")))]
    items: list[Item] = [_order(schemes, title), *charts]
    if one.get("critical_difference"):
        items += [Text(_groups(one["critical_difference"], title)), _superiority(one, title)]
    return items


def _order(schemes: list[Ranking], title: str) -> CellTable:
    names = [_SCHEMES.get(str(scheme.get("by")), "") for scheme in schemes]
    head = ("Model", *(f"Rank by {name}" for name in names), "Mean")
    taus = [in_words(scheme.get("kendall_tau"), "plain") for scheme in schemes]
    said = ", ".join(f"{name} {tau}" for name, tau in zip(names, taus, strict=True))
    patients = count(int(schemes[0].get("n") or 0), "patient")
    builder = TableBuilder(f"Ranks by {title}, over {patients}; Kendall's tau: {said}", head)
    for model in schemes[0]["models"]:
        cells = [_rank(scheme, model.get("model")) for scheme in schemes]
        builder.row(words(model.get("model")), *cells, number(model.get("mean")))
    for scheme in schemes:
        if scheme.get("reason"):
            builder.missing("all models", "ranks", str(scheme["reason"]))
    return builder.table()


def _rank(one: Ranking, model: Any) -> Cell:
    found: Ranking = next((m for m in one["models"] if m.get("model") == model), {})
    ends = {"value": found.get("rank"), "low": found.get("rank_low"), "high": found.get("rank_high")}
    return estimate(ends, "count")


def _groups(found: Any, title: str) -> str:
    groups = dig(found, "groups") or []
    difference, p = dig(found, "critical_difference"), dig(found, "friedman_p")
    if difference is None:
        return f"{title}, critical difference: {dig(found, 'reason') or 'not given'}."
    n = int(dig(found, "n") or 0)
    if n < _FEWEST:
        return f"{title}: with {count(n, 'patient')} Friedman's test and a critical difference are not given."
    told = [", ".join(group) for group in groups if len(group) > 1]
    said = (
        f"{title}: Friedman's test, whether all models are alike (not corrected), p {equals(p)}; mean ranks "
        f"that differ by less than {shown(difference, 'plain')} (Nemenyi) cannot be told apart"
    )
    return said + (f": {' | '.join(told)}." if told else ". All models can be told apart.")


def _superiority(one: Ranking, title: str) -> CellTable:
    found = one.get("superiority")
    models = list(dig(found, "models") or [])
    title = f"{title}: share of patients in whom the model of the row is better than that of the column"
    builder = TableBuilder(title, ("Model", *models))
    for line, model in enumerate(models):
        cells = [number(dig(found, "probability", line, column), "plain") for column in range(len(models))]
        builder.row(words(model), *cells)
    return builder.table()


def _others(every: list[Ranking]) -> CellTable:
    """Every endpoint and scheme in a line, since there are more of them than models."""
    models = list(dict.fromkeys(model.get("model") for one in every for model in one["models"]))
    builder = TableBuilder("Rank by every endpoint, range under it", ("Endpoint", "Scheme", *models))
    for one in every:
        title = endpoint_title(str(one.get("metric")), str(one.get("label")))
        scheme = _SCHEMES.get(str(one.get("by")), "")
        builder.row(words(title), words(scheme), *(_rank(one, model) for model in models))
    return builder.table()
