"""The canonical table: one row per patient, the only thing that staging and analyses read."""

from aiene.risk.table.columns import BY_NAME, COLUMNS, DAYS_PER_YEAR, EXTRA_COLUMNS, Column
from aiene.risk.table.endpoints import Endpoint, competing, endpoint
from aiene.risk.table.files import read_raw, table_bytes, write_table
from aiene.risk.table.read import complete, read_table

__all__ = [
    "BY_NAME",
    "COLUMNS",
    "DAYS_PER_YEAR",
    "EXTRA_COLUMNS",
    "Column",
    "Endpoint",
    "competing",
    "complete",
    "endpoint",
    "read_raw",
    "read_table",
    "table_bytes",
    "write_table",
]
