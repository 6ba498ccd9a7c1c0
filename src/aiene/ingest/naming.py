"""Case ids: a name up to its first dot, and no two alike."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from aiene.ingest.case import Case, Refusal


def case_id(path: Path) -> str:
    """The name of a file or folder up to its first dot; a dot at its very beginning does not count."""
    name = path.name or path.resolve().name
    return name.lstrip(".").split(".")[0] or "case"


def distinct(found: Iterable[Case | Refusal]) -> list[Case | Refusal]:
    """The same cases in the same order, ids told apart by `_2`, `_3`, ... with a warning."""
    listed = list(found)
    taken = {item.case_id for item in listed}
    used: set[str] = set()
    result: list[Case | Refusal] = []
    for item in listed:
        if item.case_id in used:
            result.append(_renamed(item, _free(item.case_id, taken)))
        else:
            result.append(item)
        used.add(result[-1].case_id)
        taken.add(result[-1].case_id)
    return result


def _free(name: str, taken: set[str]) -> str:
    number = 2
    while f"{name}_{number}" in taken:
        number += 1
    return f"{name}_{number}"


def _renamed(item: Case | Refusal, name: str) -> Case | Refusal:
    if isinstance(item, Refusal):
        return replace(item, case_id=name)
    warning = f"another input is called {item.case_id} too, so this one is called {name}"
    return replace(item, case_id=name, warnings=(*item.warnings, warning))
