"""Results as DICOM objects that reference the source images: SEG, SR, RTSTRUCT, secondary capture."""

from aiene.export.case import ExportCase, Maker
from aiene.export.source_series import Plane, SourceSeries, on_source, planes

__all__ = ["ExportCase", "Maker", "Plane", "SourceSeries", "on_source", "planes"]
