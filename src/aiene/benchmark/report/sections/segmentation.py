"""How well the models outline, over cases."""

from __future__ import annotations

from aiene.benchmark.report.cells import TableBuilder, dig, number, words
from aiene.benchmark.report.charts.boxes import boxes
from aiene.benchmark.report.charts.volumes import volumes
from aiene.benchmark.report.record import Item, Section, Table, Text
from aiene.benchmark.report.sections.wording import METRICS, metric
from aiene.benchmark.report.source import Source

_SHOWN = tuple(name for name in METRICS if name != "auc")


def segmentation(source: Source) -> Section:
    """The chapter."""
    items: list[Item] = []
    if not source.segmenters:
        items.append(Text("No model gave a segmentation, so that there is nothing to show here."))
    for label in source.labels:
        items += [_table(source, label, "mean"), _table(source, label, "median")]
        items += [chart for chart in (boxes(source, label), volumes(source, label)) if chart is not None]
    missing = [label for label in ("GTVp", "GTVn") if source.segmenters and label not in source.labels]
    if missing:
        items.append(Text(f"{' and '.join(missing)} is in no ground truth, so that it has no figures."))
    return Section("segmentation", "Segmentation", tuple(items))


def _table(source: Source, label: str, which: str) -> Table:
    head = ("Model", "n", *(metric(name).title for name in _SHOWN))
    title = f"{label}: {which} over cases, 95 % interval by bootstrap over patients"
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
