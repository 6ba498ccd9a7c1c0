"""Each model against the reference, and in words whether a difference was found."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, in_words, number, shown, words
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.sections.wording import METRICS, count, metric
from aiene.benchmark.report.source import Source

FOUND = ("better", "worse")
_FEWEST = 6  # patients; with fewer no permutation can give p < 0.05 (2 / 2 ** 5 = 0.0625)

Comparison = dict[str, Any]


def comparisons(source: Source) -> Section:
    """The chapter."""
    every = _every(source)
    if not every:
        return Section("comparisons", "Pairwise comparisons", (Text(_why_none(source)),))
    items: list[Item] = [
        Text(_how(source)),
        *_few(every),
        Text("", tuple(_sentences(every, source.reference))),
    ]
    names = dict.fromkeys((str(one.get("metric")), str(one.get("label"))) for one in every)
    order = sorted({label for _, label in names}, key=lambda label: (label != source.main_label, label))
    for label in order:
        rows = [one for one in every if one.get("label") == label]
        items.append(_areas(rows) if rows[0].get("metric") == "auc" else _table(rows, label))
    return Section("comparisons", "Pairwise comparisons", tuple(items))


def main_sentences(source: Source) -> list[str]:
    """Whether a difference was found, for the summary: main label's Dice and the area under the ROC curve."""
    every = _every(source)
    if not every:
        return [_why_none(source)]
    main = [one for one in every if _is_main(one, source.main_label)]
    found = sum(one.get("verdict") in FOUND for one in every)
    told = _sentences(main, source.reference)
    told.append(
        f"In {found} of all {count(len(every), 'comparison')} (every metric and label) a difference was found."
    )
    return told


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
        f"Reference: {source.reference}. Differences are model less reference, over the same patients, with 95 % "
        "intervals by bootstrap over patients. A difference counts as found where the p value of the permutation "
        "test, corrected by Holm over the models of a metric and label, is under 0.05 (areas under the ROC curve: "
        "DeLong's test, and the interval leaves 0 out). A case that failed counts as an empty prediction."
    )


def _few(every: list[Comparison]) -> list[Text]:
    ns = [n for one in every if (n := dig(one, "paired", "n")) is not None]
    if not ns or min(ns) >= _FEWEST:
        return []
    least = 2 / 2 ** min(ns) if min(ns) else 1.0
    return [
        Text(
            f"With {count(min(ns), 'patient')} a permutation test cannot give a p value under {shown(min(least, 1.0), 'p')}: "
            "whatever the models are like, no difference in segmentation can be shown on so few.",
            kind="warn",
        )
    ]


def _sentences(every: list[Comparison], reference: str | None) -> list[str]:
    told = []
    for name, label in dict.fromkeys((str(o.get("metric")), str(o.get("label"))) for o in every):
        rows = [o for o in every if o.get("metric") == name and o.get("label") == label]
        found = [_found(row, name, reference) for row in rows if row.get("verdict") in FOUND]
        open_ = [str(row.get("model")) for row in rows if row.get("verdict") == "no difference shown"]
        odd = [str(row.get("model")) for row in rows if row.get("verdict") == "not comparable"]
        parts = list(found)
        if open_:
            parts.append(f"no difference from {reference} was shown for {', '.join(open_)}")
        if odd:
            parts.append(f"not comparable: {', '.join(odd)}")
        told.append(f"{metric(name).title}, {label}: {'; '.join(parts)}.")
    return told


def _found(row: Comparison, name: str, reference: str | None) -> str:
    difference = row.get("difference") or dig(row, "paired", "mean_difference")
    return (
        f"{row.get('model')} is {row.get('verdict')} than {reference} by "
        f"{in_words(difference, metric(name).kind)}, p {_equals(row.get('p_holm'))}"
    )


def _equals(p: float | None) -> str:
    said = shown(p, "p")
    return said if said.startswith("<") else f"= {said}"


def _table(rows: list[Comparison], label: str) -> Table:
    head = (
        *("Metric", "Model", "Patients", "Mean difference", "Probability of superiority", "p Wilcoxon"),
        *("p permutation", "p Holm", "Verdict"),
    )
    builder = TableBuilder(f"{label}: model less reference", head)
    order = {name: place for place, name in enumerate(METRICS)}
    for row in sorted(rows, key=lambda one: order.get(str(one.get("metric")), len(order))):
        shown_as = metric(str(row.get("metric")))
        who, paired = f"{row.get('model')}, {shown_as.title}", row.get("paired")
        builder.row(
            words(shown_as.title),
            words(row.get("model")),
            number(dig(paired, "n"), "count"),
            builder.estimate(who, dig(paired, "mean_difference"), shown_as.kind),
            builder.estimate(f"{who}, superiority", dig(paired, "superiority")),
            number(dig(paired, "wilcoxon_p"), "p"),
            number(dig(paired, "permutation_p"), "p"),
            number(row.get("p_holm"), "p"),
            words(row.get("verdict")),
        )
        if dig(paired, "reason"):
            builder.missing(who, str(dig(paired, "reason")).rstrip("."))
    return builder.table()


def _areas(rows: list[Comparison]) -> Table:
    title = "Area under the ROC curve of extranodal extension on the truth's nodes: model less reference"
    builder = TableBuilder(title, ("Model", "Nodes", "Difference", "p DeLong", "p Holm", "Verdict"))
    for row in rows:
        builder.row(
            words(row.get("model")),
            number(row.get("n"), "count"),
            builder.estimate(f"{row.get('model')}, AUC", row.get("difference")),
            number(row.get("p_delong"), "p"),
            number(row.get("p_holm"), "p"),
            words(row.get("verdict")),
        )
    return builder.table()
