"""Public collections and own tables, read into the canonical table; what was understood is always told."""

from aiene.risk.importers.importing import SOURCES, Imported, Importer, import_table
from aiene.risk.importers.mapping import Mapping, read_mapping, template
from aiene.risk.importers.options import ImportOptions
from aiene.risk.importers.source import PreviewLine

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
