"""An analysis as files: JSON, CSV, SVG, PNG and one HTML page."""

from aiene.risk.analyse.report.write import write_analysis

__all__ = ["write_analysis"]
