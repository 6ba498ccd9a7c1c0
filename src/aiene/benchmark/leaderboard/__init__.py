"""The leaderboard: every run's figures, compared only on the same data, shared without patients."""

from aiene.benchmark.leaderboard.entry import (
    Entry,
    entry_from_json,
    entry_to_json,
)
from aiene.benchmark.leaderboard.page import page, write_page
from aiene.benchmark.leaderboard.ranks import Board, Place, boards, check_metric, newest_only
from aiene.benchmark.leaderboard.store import (
    FILE_NAME,
    add_entries,
    add_entry,
    board_file,
    export_json,
    import_json,
    read_board,
    read_entries,
)

__all__ = [
    "FILE_NAME",
    "Board",
    "Entry",
    "Place",
    "add_entries",
    "add_entry",
    "board_file",
    "boards",
    "check_metric",
    "entry_from_json",
    "entry_to_json",
    "export_json",
    "import_json",
    "newest_only",
    "page",
    "read_board",
    "read_entries",
    "write_page",
]
