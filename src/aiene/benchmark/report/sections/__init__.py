"""The chapters of the report, one module for each."""

from __future__ import annotations

from aiene.benchmark.report.record import Section
from aiene.benchmark.report.sections.classification import classification
from aiene.benchmark.report.sections.comparisons import comparisons
from aiene.benchmark.report.sections.detection import detection
from aiene.benchmark.report.sections.methods import methods
from aiene.benchmark.report.sections.overview import overview
from aiene.benchmark.report.sections.ranks import ranks
from aiene.benchmark.report.sections.resources import resources
from aiene.benchmark.report.sections.segmentation import segmentation
from aiene.benchmark.report.sections.trouble import trouble
from aiene.benchmark.report.sections.worst import worst
from aiene.benchmark.report.source import Source

__all__ = ["all_sections"]


def all_sections(source: Source) -> list[Section]:
    """Every chapter in its order; one that has nothing to show says so."""
    return [
        overview(source),
        segmentation(source),
        detection(source),
        classification(source),
        comparisons(source),
        ranks(source),
        resources(source),
        worst(source),
        trouble(source),
        methods(source),
    ]
