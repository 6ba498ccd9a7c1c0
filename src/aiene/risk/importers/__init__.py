"""Public collections and own tables, read into the canonical table; what was understood is always told."""

from aiene.risk.importers.mapping import Mapping, read_mapping, template
from aiene.risk.importers.registry import SOURCES, Imported, Importer, import_table
from aiene.risk.importers.source import ImportOptions, PreviewLine

__all__ = [
    "SOURCES",
    "ImportOptions",
    "Imported",
    "Importer",
    "Mapping",
    "PreviewLine",
    "import_table",
    "read_mapping",
    "template",
]
