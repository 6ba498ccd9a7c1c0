"""What an analysis consists of: tables and figures that carry their own numbers and their own words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing


Kind = Literal["text", "count", "number", "number3", "percent", "p", "mixed"]
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Column:
    """One column as it is shown.

    Parameters
    ----------
    key : of the value in a row.
    title : head of the column.
    kind : how the value is shown; the row keeps it in full.
    low, high : keys of an interval that is shown behind the value.
    """

    key: str
    title: str
    kind: Kind = "text"
    low: str = ""
    high: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """Every key of a row that this column shows."""
        return tuple(k for k in (self.key, self.low, self.high) if k)


@dataclass(frozen=True)
class Table:
    """Rows of plain values (None where there is none) and how to show them.

    Parameters
    ----------
    name : of its CSV file and of its place in `analysis.json`.
    title : one line above it.
    columns : what is shown; a row may hold more, which CSV and JSON keep.
    rows : plain Python values only.
    note : sentences below it: tests, rules, what was left out.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    note: str = ""

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of all rows: the shown ones first, then the others as they come."""
        shown = [key for column in self.columns for key in column.keys]
        return tuple(dict.fromkeys([*shown, *(key for row in self.rows for key in row)]))


@dataclass(frozen=True)
class Figure:
    """A picture, the numbers behind it and the sentence below it.

    Parameters
    ----------
    name : of its files and of its place in `analysis.json`.
    title : one line above it.
    legend : what is drawn, n, events, test, type of interval, seed.
    kind : name of the drawing function.
    content : what that function draws; plain values only.
    data : the numbers by column, all of one length; what goes to CSV and JSON.
    wide : takes the whole width of the page.
    """

    name: str
    title: str
    legend: str
    kind: str
    content: Mapping[str, Any]
    data: Mapping[str, Sequence[Any]]
    wide: bool = False


@dataclass(frozen=True)
class Text:
    """A paragraph of the report."""

    words: str
    kind: Literal["plain", "warning"] = "plain"


Item = Table | Figure | Text


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Parameters
    ----------
    name : its anchor.
    title : its heading.
    items : in the order of the page.
    """

    name: str
    title: str
    items: tuple[Item, ...]


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


# What a report is made of: sections of texts, tables and figures, before they are HTML.


Value = float | int | str | None


class CellPart(NamedTuple):
    """A piece of a cell.

    Parameters
    ----------
    text : as it is shown.
    value : the number in the summary that it stands for; None for words.
    small : shown small on a line of its own, as intervals are.
    """

    text: str
    value: float | int | None = None
    small: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell of a table; `numeric` ones stand to the right."""

    parts: tuple[CellPart, ...]
    numeric: bool = True


@dataclass(frozen=True)
class CellTable:
    """A table; `notes` say why figures in it are missing."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paragraph:
    """A paragraph; each of `points` is a line of a list under it."""

    words: str = ""
    points: tuple[str, ...] = ()
    kind: Literal["plain", "warn", "note"] = "plain"


@dataclass(frozen=True)
class Chart:
    """A chart that can be drawn, and what it shows as a table.

    Parameters
    ----------
    name : of its files, without ending.
    legend : one or two sentences under it.
    columns, rows : its CSV.
    draw : makes the figure; matplotlib is loaded only then.
    photographic : shown as PNG on the page, since it holds pictures.
    """

    name: str
    title: str
    legend: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]
    draw: Callable[[], Drawing]
    photographic: bool = False


ChapterItem = Paragraph | CellTable | Chart


@dataclass(frozen=True)
class Chapter:
    """A chapter of the report; `name` is its anchor."""

    name: str
    title: str
    items: tuple[ChapterItem, ...]
