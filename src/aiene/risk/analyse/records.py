"""What an analysis consists of: chapters, what could not be done, warnings, and what it was made with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiene.report.document import Figure, Item, Row, Section, Table


@dataclass(frozen=True)
class Skipped:
    """Something that could not be done, with its reason.

    Parameters
    ----------
    what : in words.
    reason : one sentence.
    asked : the user asked for it by name, so the command ends with 1.
    """

    what: str
    reason: str
    asked: bool = False


@dataclass(frozen=True)
class Part:
    """What one step of the analysis gives."""

    items: tuple[Item, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()

    def __add__(self, other: Part) -> Part:
        return Part(self.items + other.items, self.skipped + other.skipped, self.warnings + other.warnings)


@dataclass(frozen=True)
class Analysis:
    """A whole analysis, ready to be written.

    Parameters
    ----------
    head : title, date, notice, settings, scheme, software: what it was made with.
    sections : chapters in the order of the report.
    skipped : what was asked for and could not be done.
    warnings : what a reader must know.
    simulated : the AI-ENE count was simulated, so every output says so.
    methods : the methods paragraph.
    checklists : REMARK and TRIPOD+AI items by name.
    """

    head: Mapping[str, Any]
    sections: tuple[Section, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    simulated: bool = False
    methods: str = ""
    checklists: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where all that was asked for by name is there, else 1."""
        return 1 if any(s.asked for s in self.skipped) else 0

    @property
    def tables(self) -> dict[str, Table]:
        """Every table by name."""
        return {i.name: i for s in self.sections for i in s.items if isinstance(i, Table)}

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        return {i.name: i for s in self.sections for i in s.items if isinstance(i, Figure)}
