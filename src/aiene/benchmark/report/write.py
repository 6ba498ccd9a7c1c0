"""From the folder of a benchmark to its report."""

from __future__ import annotations

from pathlib import Path

from aiene.benchmark.report.comparison import comparisons, ranks
from aiene.benchmark.report.overview import methods, overview, trouble
from aiene.benchmark.report.performance import classification, detection, resources, segmentation
from aiene.benchmark.report.results_reader import Source, read_source
from aiene.benchmark.report.worst_cases import worst
from aiene.report.document import RESEARCH_ONLY, Document, Section
from aiene.report.page import page
from aiene.report.write import draw_figures, write_figures
from aiene.results.ownership import Owned

_CLOSING = "A difference that is not shown is not proof that there is none."


def write_report(folder: Path) -> Path:
    """Write `benchmark_report_<time>.html` and, in `benchmark_charts_<time>/`, its charts.

    Each chart is there as PNG, SVG and CSV, with its legend. The same results give the same bytes.

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
    document = document_of(source)
    figures = [figure for section in document.sections for figure in section.figures]
    pictures = draw_figures(figures)
    charts = folder / f"benchmark_charts_{source.stamp}"
    owned = Owned(folder)
    if figures:
        owned.claim(charts.name)
        write_figures(owned, charts, figures, pictures)
    path = folder / f"benchmark_report_{source.stamp}.html"
    owned.write(path, page(document, pictures, figures=charts.name).encode())
    return path


def document_of(source: Source) -> Document:
    """The page of a benchmark."""
    created = str(source.summary.get("created", ""))[:16].replace("T", " ")
    return Document(
        title=f"Benchmark of {len(source.models)} {'model' if len(source.models) == 1 else 'models'}",
        lead=f"Made {created} UTC with aiene {source.summary.get('aiene', '')}".strip(),
        notice=RESEARCH_ONLY,
        sections=tuple(all_sections(source)),
        closing=_CLOSING,
    )


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
