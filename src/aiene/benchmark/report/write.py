"""From the folder of a benchmark to its report."""

from __future__ import annotations

from pathlib import Path

from aiene.benchmark.report.comparison import comparisons, ranks
from aiene.benchmark.report.overview import methods, overview, trouble
from aiene.benchmark.report.performance import classification, detection, resources, segmentation
from aiene.benchmark.report.results_reader import Source, read_source
from aiene.benchmark.report.worst_cases import worst
from aiene.report.document import Chapter as Section
from aiene.report.document import Chart
from aiene.report.page import chapter_page as page
from aiene.report.render import Picture, render
from aiene.results.atomic import write_bytes
from aiene.results.ownership import Owned

__all__ = ["all_sections"]


# The chapters of the report, one module for each.


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


NOTICE = "Research software, not a medical device."


def write_report(folder: Path) -> Path:
    """Write `benchmark_report_<time>.html` and, in `benchmark_charts_<time>/`, its charts.

    Each chart is there as PNG, SVG and CSV. The same results give the same bytes.

    Parameters
    ----------
    folder : of a benchmark that is done; its newest summary is reported.

    Returns
    -------
    The HTML file.

    Raises
    ------
    InputError : the folder holds no benchmark that this version can read.
    OutputError : the report cannot be written.
    MissingExtraError : matplotlib or jinja2 is not installed.
    """
    source = read_source(folder)
    sections = all_sections(source)
    charts = folder / f"benchmark_charts_{source.stamp}"
    pictures = _write_charts(sections, charts)
    title = f"Benchmark of {len(source.models)} {'model' if len(source.models) == 1 else 'models'}"
    lead = f"Made {str(source.summary.get('created', ''))[:16].replace('T', ' ')} UTC with aiene "
    lead += str(source.summary.get("aiene", ""))
    text = page(title, lead.strip(), NOTICE, sections, pictures, charts.name)
    path = folder / f"benchmark_report_{source.stamp}.html"
    Owned(folder).write(path, text.encode())
    return path


def _write_charts(sections: list[Section], folder: Path) -> dict[str, Picture]:
    charts = [item for section in sections for item in section.items if isinstance(item, Chart)]
    if charts:
        Owned(folder.parent).claim(folder.name)
    pictures = {}
    for chart in charts:
        picture = pictures[chart.name] = render(chart)
        for ending, content in picture._asdict().items():
            write_bytes(folder / f"{chart.name}.{ending}", content)
    return pictures
