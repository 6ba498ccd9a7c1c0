"""What a report is made of: sections of text, tables and figures, before they become files and a page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

RESEARCH_ONLY = "Research software, not a medical device."
"""On every page, in every summary and in every exported object."""

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
    """Rows of plain values (None where there is none) and how to show them; written as CSV and JSON too.

    Parameters
    ----------
    name : of its CSV file, its anchor and its place in the JSON record.
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


class CellPart(NamedTuple):
    """A piece of a cell.

    Parameters
    ----------
    text : as it is shown.
    value : the number in the record that it stands for; None for words.
    small : shown small on a line of its own, as intervals are.
    href : where it leads, such as `#tab-flow`; empty for none.
    """

    text: str
    value: float | int | None = None
    small: bool = False
    href: str = ""


@dataclass(frozen=True)
class Cell:
    """A cell of a page's table; `numeric` ones stand to the right, `alarm` ones in the colour of warnings."""

    parts: tuple[CellPart, ...]
    numeric: bool = True
    alarm: bool = False


@dataclass(frozen=True)
class CellTable:
    """A table whose cells are already composed, for the page only.

    Parameters
    ----------
    caption : one line above it.
    head : titles of the columns.
    notes : lines below it, such as why figures in it are missing.
    name : of its CSV file and anchor; empty where there is none.
    """

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()
    name: str = ""


@dataclass(frozen=True)
class Figure:
    """A chart that can be drawn, the numbers behind it and the sentence below it.

    Parameters
    ----------
    name : of its files, without ending, and of its place in the JSON record.
    title : one line.
    legend : what is drawn, n, events, test, type of interval, seed.
    draw : makes the drawing; matplotlib is loaded only then. It can be pickled where figures are drawn in
        other processes.
    data : the numbers by column, all of one length; what goes to CSV and JSON.
    wide : takes the whole width of the page.
    photographic : shown as PNG on the page, since it holds images.
    """

    name: str
    title: str
    legend: str
    draw: Callable[[], Drawing]
    data: Mapping[str, Sequence[Any]]
    wide: bool = False
    photographic: bool = False


def by_column(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> dict[str, tuple[Any, ...]]:
    """Rows as the `data` of a figure: the values of each column."""
    return {column: tuple(row[place] for row in rows) for place, column in enumerate(columns)}


@dataclass(frozen=True)
class Text:
    """A paragraph; each of `points` is a line of a list under it."""

    words: str = ""
    points: tuple[str, ...] = ()
    kind: Literal["plain", "warning", "note"] = "plain"


@dataclass(frozen=True)
class Facts:
    """Names with their values, such as versions and settings."""

    rows: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Fold:
    """Items that a reader opens only when wanted; closed, they take one line on screen and on paper.

    Parameters
    ----------
    title : what is in it, in one line.
    """

    title: str
    items: tuple[Item, ...]


Item = Table | CellTable | Figure | Text | Facts | Fold


@dataclass(frozen=True)
class Section:
    """A chapter of the report.

    Parameters
    ----------
    name : its anchor.
    title : its heading.
    items : in the order of the page.
    boxed : framed, as the key results are.
    """

    name: str
    title: str
    items: tuple[Item, ...]
    boxed: bool = False

    @property
    def figures(self) -> tuple[Figure, ...]:
        """Its figures, in their order."""
        return tuple(item for item in self.items if isinstance(item, Figure))

    @property
    def tables(self) -> tuple[Table, ...]:
        """Its tables that are files too, in their order."""
        return tuple(item for item in self.items if isinstance(item, Table))


@dataclass(frozen=True)
class Document:
    """A whole page.

    Parameters
    ----------
    title : heading and title of the page.
    lead : when and with what it was made.
    notice : the sentence that stands wherever results are shown.
    sections : in the order of the page.
    banner : what a reader must not overlook, such as that a count is simulated; empty for nothing.
    closing : last words after the notice.
    """

    title: str
    lead: str
    notice: str
    sections: tuple[Section, ...]
    banner: str = ""
    closing: str = ""
