"""The report of a benchmark: one HTML page, with each of its charts as PNG, SVG and CSV beside it."""

from aiene.benchmark.report.write import write_report

__all__ = ["write_report"]
