"""Pictures of the cases that went worst."""

from __future__ import annotations

from aiene.benchmark.report.record import Item, Section, Text
from aiene.benchmark.report.source import Source
from aiene.benchmark.report.worst import EACH, worst_cases
from aiene.geometry import Volume


def worst(source: Source) -> Section:
    """The chapter."""
    label = source.main_label
    if label is None or not source.segmenters:
        return Section("worst", "Worst cases", (Text("No model gave a segmentation."),))
    items: list[Item] = [
        Text(
            f"For each model the up to {EACH} cases with the lowest Dice of {label}. A case that failed has no "
            "picture; it stands under what was left out."
        )
    ]
    cts: dict[str, Volume | None] = {}
    for model in source.segmenters:
        chart, without = worst_cases(source, model, label, cts)
        items += [chart] if chart is not None else []
        if without:
            points = tuple(f"{case}: {reason}." for case, reason in without)
            items.append(Text(f"{model['name']}, without a picture:", points, "note"))
        elif chart is None:
            items.append(Text(f"{model['name']}: no case with a Dice of {label}.", kind="note"))
    return Section("worst", "Worst cases", tuple(items))
