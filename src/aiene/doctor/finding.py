"""One thing that was looked at: how it is, and what to do where it is not right."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Level = Literal["ok", "note", "problem"]


@dataclass(frozen=True)
class Finding:
    """What was found.

    Parameters
    ----------
    area : what was looked at, in a word or two.
    level : `note` where something works less well, or is not installed and may not be needed.
    text : one sentence without a full stop.
    remedy : what to do; empty where all is well.
    facts : figures for machines.
    """

    area: str
    level: Level
    text: str
    remedy: str = ""
    facts: dict[str, Any] = field(default_factory=dict)


Check = Callable[[], Iterator[Finding]]


@dataclass(frozen=True)
class Diagnosis:
    """Everything that was found."""

    findings: tuple[Finding, ...]

    @property
    def exit_code(self) -> int:
        """1 where there is a problem."""
        return int(any(finding.level == "problem" for finding in self.findings))

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"exit_code": self.exit_code, "findings": [asdict(finding) for finding in self.findings]}


def examine(checks: Sequence[Check], on_finding: Callable[[Finding], None] = lambda _: None) -> Diagnosis:
    """Run checks one after the other."""
    found: list[Finding] = []
    for check in checks:
        for finding in check():
            found.append(finding)
            on_finding(finding)
    return Diagnosis(tuple(found))
