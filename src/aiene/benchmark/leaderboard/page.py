"""The leaderboard as one HTML page that needs nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from aiene.benchmark.leaderboard.entry import Board, Entry, Place, boards
from aiene.benchmark.metrics.segmentation import goodness, higher_is_better
from aiene.report.document import RESEARCH_ONLY
from aiene.results.atomic import make_folder, write_bytes
from aiene.results.ownership import refuse_unless

_MARK = '<meta name="generator" content="aiene">'
_STYLE = """
:root { color-scheme: light dark; --line: #8884; --best: #2a7d4f; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 96rem; padding: 0 1rem; }
.notice { border-left: 4px solid #b3261e; padding: .3rem .8rem; font-weight: 600; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; white-space: nowrap; }
caption { text-align: left; padding: .4rem 0; }
th, td { padding: .3rem .7rem; border-bottom: 1px solid var(--line); text-align: right; }
th.text, td.text { text-align: left; }
th button { font: inherit; font-weight: 600; background: none; border: 0; padding: 0; color: inherit;
            cursor: pointer; }
th[aria-sort] button { text-decoration: underline; }
td.best { color: var(--best); font-weight: 700; }
code { font-size: .9em; }
th:nth-child(2), td:nth-child(2) { position: sticky; left: 0; background: Canvas; }
"""

_TEXTS = ("site", "model hash", "version", "machine", "created", "note")

_SCRIPT = """
for (const button of document.querySelectorAll("th button")) {
  button.addEventListener("click", () => {
    const head = button.closest("th"), body = head.closest("table").tBodies[0];
    const place = [...head.parentNode.children].indexOf(head);
    const up = head.getAttribute("aria-sort") === "descending";
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const rows = [...body.rows].map(row => [row, row.cells[place].dataset.value ?? ""]);
    const number = head.dataset.kind === "number";
    rows.sort(([, a], [, b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const order = number ? a - b : a.localeCompare(b);
      return up ? order : -order;
    });
    for (const [row] of rows) body.append(row);
  });
}
"""


def write_page(entries: Sequence[Entry], path: Path, *, sort: str | None = None) -> None:
    """Write the page.

    Parameters
    ----------
    entries : of one data set or more; only those of the same are in one table.
    sort : metric that the tables are sorted by at first.

    Raises
    ------
    UsageError : no entry has the metric. OutputError : it cannot be written, or it is another's file.
    """
    refuse_unless(path, lambda content: _MARK.encode() in content[:1024])
    make_folder(path.resolve().parent)
    write_bytes(path, page(entries, sort=sort).encode())


def page(entries: Sequence[Entry], *, sort: str | None = None) -> str:
    """The page as text.

    Raises
    ------
    UsageError : no entry has the metric.
    """
    sections = "\n".join(_section(board) for board in boards(entries, sort=sort))
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{_MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Leaderboard</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>Leaderboard</h1>
<p class="notice">{RESEARCH_ONLY}</p>
<p>One table for each data set, by the hash of its content: figures on different data are not comparable.
An arrow shows which way is better; the best of a column is bold. A place without intervals is no proof of a
difference: see the report of the run. Click a heading to sort.</p>
{sections or "<p>There are no entries.</p>"}
<script>{_SCRIPT}</script>
</body>
</html>
"""


def _section(board: Board) -> str:
    heads = "".join(
        [
            _head("rank", "number"),
            _head("model", "text"),
            _head("cases", "number"),
            *(_head(f"{n} {_arrow(n)}".strip(), "number", order=_order(board, n)) for n in board.metrics),
            *(_head(name, "text") for name in _TEXTS),
        ]
    )
    best = {name: _best(board, name) for name in board.metrics}
    rows = "\n".join(_row(board, place, best) for place in board.places)
    warning = "" if board.same_cases else " <strong>The entries are over different numbers of cases.</strong>"
    return f"""<h2>Data set <code>{escape(board.data_sha256[:12])}</code></h2>
<div class="scroll"><table>
<caption>Ranked by {escape(board.sort)}.{warning}
Whole hash: <code>{escape(board.data_sha256)}</code></caption>
<thead><tr>{heads}</tr></thead>
<tbody>
{rows}
</tbody>
</table></div>"""


def _order(board: Board, name: str) -> str:
    """How the figures of the metric that is sorted by run down the page; empty for every other."""
    if name != board.sort or higher_is_better(name) is None:
        return ""
    return ' aria-sort="descending"' if higher_is_better(name) else ' aria-sort="ascending"'


def _head(title: str, kind: str, *, order: str = "") -> str:
    look = ' class="text"' if kind == "text" else ""
    return f'<th{look} data-kind="{kind}"{order}><button type="button">{escape(title)}</button></th>'


def _row(board: Board, place: Place, best: dict[str, float | None]) -> str:
    entry = place.entry
    cells = [_number(place.rank, "d"), _text(entry.model), _number(entry.n_cases, "d")]
    for name in board.metrics:
        value = entry.metrics.get(name)
        is_best = value is not None and len(board.places) > 1 and goodness(name, value) == best[name]
        cells.append(_number(value, ".4g", best=is_best))
    short_hash = (entry.model_sha256 or "")[:12]
    texts = (entry.site, short_hash, entry.version, entry.machine, entry.created, entry.note)
    cells += [_text(text) for text in texts]
    return f"<tr>{''.join(cells)}</tr>"


def _number(value: float | None, form: str, *, best: bool = False) -> str:
    if value is None:
        return "<td>–</td>"
    look = ' class="best"' if best else ""
    return f'<td{look} data-value="{value!r}">{value:{form}}</td>'


def _text(text: str) -> str:
    return f'<td class="text" data-value="{escape(text)}">{escape(text)}</td>'


def _best(board: Board, name: str) -> float | None:
    values = [p.entry.metrics.get(name) for p in board.places]
    return max((goodness(name, value) for value in values if value is not None), default=None)


def _arrow(name: str) -> str:
    return {True: "↑", False: "↓", None: ""}[higher_is_better(name)]
