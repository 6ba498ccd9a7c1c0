"""What an export ended with, case by case, and its tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from aiene.cells import rows_bytes
from aiene.results.ownership import Owned

Kind = Literal["dicom-seg", "dicom-sr", "rtstruct", "secondary-capture", "dicom-seg-fractional"]
KINDS: tuple[Kind, ...] = ("dicom-seg", "dicom-sr", "rtstruct", "secondary-capture", "dicom-seg-fractional")

CSV = "export.csv"
JSON = "export.json"


@dataclass(frozen=True)
class ExportRow:
    """What became of one case.

    Parameters
    ----------
    status : `ok`, `failed`, or `skipped` where the run itself gave no result for the case.
    reason : one sentence where it is not `ok`.
    files : written or confirmed, by their path below the run's folder.
    warnings : what the user should look at.
    seconds : wall time.
    identity : of the result that was exported.
    dated : date of its objects.
    """

    case_id: str
    status: Literal["ok", "failed", "skipped"]
    reason: str = ""
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    identity: str = field(default="", repr=False)
    dated: str = ""


class ExportProgress(NamedTuple):
    """One case that is done: which of how many."""

    number: int
    total: int
    row: ExportRow


@dataclass(frozen=True)
class ExportSummary:
    """What an export ended with.

    Parameters
    ----------
    rows : of every case of the run, in byte order of their ids.
    kinds : what was asked for.
    notice : the bundle's sentence, to stand wherever its results are shown.
    tables : path of each table that was written.
    """

    rows: tuple[ExportRow, ...]
    kinds: tuple[Kind, ...]
    notice: str
    tables: dict[str, Path] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where every case that has a result is exported, 1 where one failed."""
        return int(any(row.status == "failed" for row in self.rows))

    @property
    def counts(self) -> dict[str, int]:
        """How many cases of each status."""
        every = [row.status for row in self.rows]
        return {status: every.count(status) for status in ("ok", "failed", "skipped") if status in every}


def write_tables(out: Path, rows: Sequence[ExportRow], kinds: Sequence[Kind], notice: str) -> dict[str, Path]:
    """Write `export.csv` and `export.json`.

    Raises
    ------
    OutputError : they cannot be written.
    """
    header = ["case_id", "status", "reason", "files", "warnings", "seconds"]
    table = [
        [r.case_id, r.status, r.reason, " | ".join(r.files), " | ".join(r.warnings), r.seconds] for r in rows
    ]
    owned = Owned(out)
    owned.write(out / CSV, rows_bytes([header, *table]))
    content = {"format": 1, "kinds": list(kinds), "notice": notice, "cases": [asdict(row) for row in rows]}
    owned.write_json(out / JSON, content)
    return {"csv": out / CSV, "json": out / JSON}


def earlier_dates(out: Path) -> dict[str, datetime]:
    """The dates that an earlier export gave to the objects of each result, by the result's identity.

    A run that is taken up again has a later start; what was exported before keeps its date, and so its bytes.
    """
    try:
        content: dict[str, Any] = json.loads((out / JSON).read_text(encoding="utf-8"))
        return {
            case["identity"]: datetime.fromisoformat(case["dated"])
            for case in content["cases"]
            if case["identity"] and case["dated"]
        }
    except (OSError, ValueError, KeyError, TypeError):
        return {}
