"""Figures of each case in a file of results: taken up again where the bundle is the same, a line a case."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def taken_up(file: Path, bundle: str) -> dict[str, Any]:
    """The rows that an earlier call stored, by case.

    Parameters
    ----------
    bundle : its SHA-256; figures of another one are of no use.
    """
    stored = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    rows: dict[str, Any] = stored["cases"] if stored.get("bundle") == bundle else {}
    return rows


def store(file: Path, bundle: str, summary: dict[str, Any], rows: dict[str, Any]) -> None:
    """Write bundle, summary and rows."""
    head = json.dumps({"bundle": bundle, "summary": summary}, indent=1).removesuffix("\n}")
    lines = [f"  {json.dumps(case)}: {json.dumps(row)}" for case, row in rows.items()]
    file.write_text(",\n".join([head, ' "cases": {\n' + ",\n".join(lines)]) + "\n }\n}\n", encoding="utf-8")
