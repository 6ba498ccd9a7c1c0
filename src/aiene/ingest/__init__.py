"""From files to CTs in HU with their geometry: what is there, which of it is a CT, and its voxels."""

from aiene.ingest.case import AffineRule, Case, NativeCt, Refusal, SeriesAside
from aiene.ingest.discovery import source_files
from aiene.ingest.find import find_cases
from aiene.ingest.read import opened, read_case

__all__ = [
    "AffineRule",
    "Case",
    "NativeCt",
    "Refusal",
    "SeriesAside",
    "find_cases",
    "opened",
    "read_case",
    "source_files",
]
