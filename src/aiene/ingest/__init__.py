"""From files to CTs in HU with their geometry: what is there, which of it is a CT, and its voxels."""

from aiene.ingest.case import Case, Format, NativeCt, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case

__all__ = ["Case", "Format", "NativeCt", "Refusal", "find_cases", "read_case"]
