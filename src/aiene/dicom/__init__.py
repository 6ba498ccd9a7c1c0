"""Results as DICOM objects that reference the source images: SEG, SR, RTSTRUCT, secondary capture."""

from aiene.dicom.record import ExportCase, Maker
from aiene.dicom.source import Plane, SourceSeries, find_source, on_source, planes

__all__ = ["ExportCase", "Maker", "Plane", "SourceSeries", "find_source", "on_source", "planes"]
