"""The table of charts: which chapter of the report shows each, and where.

Each module of `charts` declares `CHARTS`, so that a further chart is one further file. The page, the
pictures, the data beside them and their legends follow from the `Figure` that it makes.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Literal

from aiene.benchmark.report import charts as package
from aiene.benchmark.report.results_reader import Source
from aiene.report.document import Figure

Chapter = Literal["segmentation", "detection", "classification", "ranks", "resources"]


@dataclass(frozen=True)
class Chart:
    """One chart of a chapter.

    Parameters
    ----------
    chapter : where it stands, behind the tables.
    place : among the charts of its chapter.
    figure : of a benchmark and the part of the chapter that it is of: a label (segmentation, resources), a
        track (classification), a scheme (ranks), else empty; None where there is nothing to draw.
    """

    chapter: Chapter
    place: int
    figure: Callable[[Source, str], Figure | None]


@cache
def _charts() -> tuple[Chart, ...]:
    modules = (
        import_module(f"{package.__name__}.{module.name}")
        for module in pkgutil.iter_modules(package.__path__)
    )
    return tuple(sorted((one for module in modules for one in module.CHARTS), key=lambda one: one.place))


def figures_of(chapter: Chapter, source: Source, part: str = "") -> list[Figure]:
    """The charts of a part of a chapter that can be drawn, in their order."""
    made = (chart.figure(source, part) for chart in _charts() if chart.chapter == chapter)
    return [figure for figure in made if figure is not None]
