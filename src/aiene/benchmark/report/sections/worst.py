"""Pictures of the cases that went worst."""

from __future__ import annotations

from aiene.benchmark.report.record import Item, Section, Text
from aiene.benchmark.report.source import Source
from aiene.benchmark.report.worst import EACH, worst_cases


def worst(source: Source) -> Section:
    """The chapter."""
    label = source.main_label
    if label is None or not source.segmenters:
        return Section("worst", "Worst cases", (Text("No model gave a segmentation."),))
    items: list[Item] = [
        Text(
            f"For each model the up to {EACH} cases with the lowest Dice of {label}. A case that failed has "
            "no picture; it stands under what was left out."
        )
    ]
    for model, (chart, without) in worst_cases(source, label).items():
        items += [chart] if chart is not None else []
        if without:
            points = tuple(f"{case}: {reason}." for case, reason in without)
            items.append(Text(f"{model}, without a picture:", points, "note"))
        elif chart is None:
            items.append(Text(f"{model}: no case with a Dice of {label}.", kind="note"))
    return Section("worst", "Worst cases", tuple(items))
