"""The leaderboard as one HTML page that needs nothing else and fits a screen."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from aiene.benchmark.leaderboard.entry import Entry
from aiene.benchmark.leaderboard.store import Board, Place, boards
from aiene.benchmark.records import goodness, higher_is_better
from aiene.report.document import RESEARCH_ONLY
from aiene.results.atomic import make_folder, write_bytes
from aiene.results.ownership import refuse_unless

_ARROWS = {True: "↑", False: "↓", None: ""}
_MARK = '<meta name="generator" content="aiene">'
SHOWN = 5
"""Figures that stand in the table; more would not fit a screen. The rest unfolds under it."""


def write_page(
    entries: Sequence[Entry],
    path: Path,
    *,
    sort: str | None = None,
    rejected: Sequence[tuple[str, str]] = (),
) -> None:
    """Write the page.

    Parameters
    ----------
    entries : of one data set or more; only those of the same are in one table.
    sort : metric that the tables are sorted by at first.
    rejected : rows that may not be ranked, as (id, reason).

    Raises
    ------
    UsageError : no entry has the metric. OutputError : it cannot be written, or it is another's file.
    """
    refuse_unless(path, lambda content: _MARK.encode() in content[:1024])
    make_folder(path.resolve().parent)
    write_bytes(path, page(entries, sort=sort, rejected=rejected).encode())


def page(
    entries: Sequence[Entry], *, sort: str | None = None, rejected: Sequence[tuple[str, str]] = ()
) -> str:
    """The page as text.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    sections = "\n".join(_section(board) for board in boards(entries, sort=sort))
    text = (resources.files("aiene.benchmark.leaderboard") / "page.html").read_text(encoding="utf-8")
    return Template(text).substitute(
        notice=RESEARCH_ONLY,
        rejected=_rejected(rejected),
        sections=sections or "<p>There are no entries.</p>",
    )


def _rejected(rejected: Sequence[tuple[str, str]]) -> str:
    if not rejected:
        return ""
    rows = "".join(f"<li><code>{escape(name)}</code>: {escape(reason)}</li>" for name, reason in rejected)
    return f'<div class="rejected">Not ranked:<ul>{rows}</ul></div>'


def _section(board: Board) -> str:
    shown = board.metrics[:SHOWN]
    heads = "".join(
        [
            _head("rank", "number"),
            _head("model, site", "text"),
            _head("cases done", "number"),
            *(_head(n, "number", arrow=_ARROWS[higher_is_better(n)], order=_order(board, n)) for n in shown),
            _head("made", "text"),
        ]
    )
    values = {name: [p.entry.metrics.get(name) for p in board.places] for name in shown}
    best = {
        name: max((goodness(name, one) for one in found if one is not None), default=None)
        for name, found in values.items()
    }
    rows = "\n".join(_row(board, place, shown, best) for place in board.places)
    said = board.settings
    settings = (
        f"IoU threshold {said['iou_threshold']:g}, prompts {said['prompts']}, counting rule {said['rule']}"
    )
    details = "\n".join(_details(place.entry) for place in board.places)
    return f"""<h2>Data set <code>{escape(board.data_sha256[:12])}</code></h2>
<table>
<caption>Ranked by {escape(board.sort)}; {escape(settings)},
patients <code>{escape(said["patients"][:12])}</code>.</caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
<details><summary>All figures of every entry</summary>
{details}
</details>"""


def _details(entry: Entry) -> str:
    """All that an entry says, folded."""
    facts = [
        ("data set", entry.data_sha256),
        ("model hash", entry.model_sha256 or "–"),
        ("version", entry.version),
        ("machine", entry.machine),
        ("created", entry.created),
        ("entry", entry.identity),
        ("note", entry.note or "–"),
        *((name, _said(entry, name)) for name in sorted(entry.metrics)),
    ]
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts)
    name = f"{entry.model} ({entry.site})" if entry.site else entry.model
    return f"<details><summary>All figures of {escape(name)}</summary><dl>{rows}</dl></details>"


def _said(entry: Entry, name: str) -> str:
    value, ends = entry.metrics.get(name), entry.intervals.get(name)
    if value is None:
        return "–"
    return f"{value:.4g}" + ("" if ends is None else f" ({ends[0]:.4g} to {ends[1]:.4g})")


def _order(board: Board, name: str) -> str:
    """How the figures of the metric that is sorted by run down the page; empty for every other."""
    if name != board.sort or higher_is_better(name) is None:
        return ""
    return ' aria-sort="descending"' if higher_is_better(name) else ' aria-sort="ascending"'


def _head(title: str, kind: str, *, arrow: str = "", order: str = "") -> str:
    look = ' class="text"' if kind == "text" else ""
    breakable = escape(f"{title} {arrow}".strip()).replace("_", "_<wbr>")  # goes on in the next line
    return f'<th{look} data-kind="{kind}"{order}><button type="button">{breakable}</button></th>'


def _row(board: Board, place: Place, shown: Sequence[str], best: dict[str, float | None]) -> str:
    entry = place.entry
    rank = "<td>–</td>" if place.rank is None else f'<td data-value="{place.rank}">{place.rank}</td>'
    cells = [rank, _text(entry.model, entry.site)]
    cells.append(f'<td data-value="{entry.n_done}">{entry.n_done} of {entry.n_cases}</td>')
    for name in shown:
        value, ends = entry.metrics.get(name), entry.intervals.get(name)
        if value is None:
            cells.append("<td>–</td>")
            continue
        look = ' class="best"' if len(board.places) > 1 and goodness(name, value) == best[name] else ""
        small = "" if ends is None else f"<small>{ends[0]:.3g} to {ends[1]:.3g}</small>"
        cells.append(f'<td{look} data-value="{value!r}">{value:.4g}{small}</td>')
    cells.append(_text(entry.created[:10]))
    return f"<tr>{''.join(cells)}</tr>"


def _text(text: str, small: str = "") -> str:
    under = f"<small>{escape(small)}</small>" if small else ""
    return f'<td class="text" data-value="{escape(text)}">{escape(text)}{under}</td>'
