"""What a report is made of: sections of texts, tables and figures, before they are HTML."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Drawing

Value = float | int | str | None


class Part(NamedTuple):
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

    parts: tuple[Part, ...]
    numeric: bool = True


@dataclass(frozen=True)
class Table:
    """A table; `notes` say why figures in it are missing."""

    caption: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Text:
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


Item = Text | Table | Chart


@dataclass(frozen=True)
class Section:
    """A chapter of the report; `name` is its anchor."""

    name: str
    title: str
    items: tuple[Item, ...]
