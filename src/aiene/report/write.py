"""Files of a report: one HTML page, every figure as SVG, PNG, CSV and its legend, every table as CSV.

The page has its figures inside; nothing is loaded from anywhere.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiene.csv_tables import rows_bytes
from aiene.errors import need
from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import CellTable, Document, Facts, Figure, Fold, Item, Table
from aiene.report.formatting import compose
from aiene.report.style import Picture, render
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned

_PNG_SCALE = 0.8  # of the pixels that matplotlib writes at `PNG_DPI`, so that images are sharp on any screen


def page(document: Document, pictures: Mapping[str, Picture], *, figures: str, tables: str = "") -> str:
    """The report as HTML.

    Parameters
    ----------
    pictures : of each figure by its name.
    figures, tables : folders of the files that the page links to, relative to it.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    sections = [
        {"name": s.name, "title": s.title, "boxed": s.boxed, "items": _items(s.items, pictures)}
        for s in document.sections
    ]
    return filled("report.html.j2", document=document, sections=sections, figures=figures, tables=tables)


def filled(template: str, **values: Any) -> str:
    """A template of the package with its values; every text in it is escaped.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    jinja2 = need("jinja2", extra="risk", purpose="Writing the page of a report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aiene.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return str(environment.get_template(template).render(**values))


def _items(items: Sequence[Item], pictures: Mapping[str, Picture]) -> list[dict[str, Any]]:
    return [_item(item, pictures) for item in items]


def _item(item: Item, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    if isinstance(item, Fold):
        return {"is": "fold", "item": item, "entries": _items(item.items, pictures)}
    if isinstance(item, Table):
        return {"is": "table", "item": compose(item)}
    if isinstance(item, CellTable):
        return {"is": "table", "item": item}
    if isinstance(item, Facts):
        return {"is": "facts", "item": item}
    if isinstance(item, Figure):
        return {"is": "figure", "item": item, **_embedded(item, pictures[item.name])}
    return {"is": "text", "item": item}


def _embedded(figure: Figure, picture: Picture) -> dict[str, Any]:
    """The drawing inside the page: as SVG, or as PNG where it holds images."""
    if not figure.photographic:
        return {"svg": inline_svg(picture.svg.decode(), figure)}
    width, height = (int.from_bytes(picture.png[at : at + 4]) for at in (16, 20))  # from a PNG's header
    return {
        "svg": "",
        "source": f"data:image/png;base64,{b64encode(picture.png).decode()}",
        "width": round(width * _PNG_SCALE),
        "height": round(height * _PNG_SCALE),
    }


_ID = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(svg: str, figure: Figure) -> str:
    """The drawing without its prologue, its ids made its own, with a title for readers who cannot see it."""
    body = svg[svg.index("<svg") :]
    body = _ID.sub(rf"\g<1>{figure.name}-", body)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    words = figure.title.replace("&", "&amp;").replace("<", "&lt;")
    box = re.search(r'viewBox="0 0 ([\d.]+) ', body)
    width = float(box.group(1)) if box else 480.0
    return f'{head} role="img" style="max-width:{width:.0f}pt"><title>{words}</title>{rest}'


Mark = Mapping[str, str]
"""Columns that every row of a CSV gets, such as the source of a simulated count."""


def draw_figures(
    figures: Sequence[Figure],
    *,
    stamp: str = "",
    workers: int | None = 1,
    on_progress: OnProgress | None = None,
) -> dict[str, Picture]:
    """Every figure drawn, by its name.

    Parameters
    ----------
    stamp : words written into the corner of each; empty for none.
    workers : processes; with 1 the work is done in this one, None is one per core.
    """
    if workers == 1:
        return {figure.name: render(figure, stamp) for figure in figures}
    jobs = [Job(f"figure {figure.name}", render, (figure, stamp), 20) for figure in figures]
    pictures = run_jobs(jobs, workers=workers, on_progress=on_progress)
    return {figure.name: picture for figure, picture in zip(figures, pictures, strict=True)}


def write_figures(
    owned: Owned,
    folder: Path,
    figures: Sequence[Figure],
    pictures: Mapping[str, Picture],
    mark: Mark | None = None,
) -> None:
    """Each figure as `NAME.svg`, `.png`, `.csv` and, with its legend, `.txt`.

    Parameters
    ----------
    owned : the folder of results that `folder` lies in.

    Raises
    ------
    OutputError : they cannot be written.
    """
    make_folder(folder)
    for figure in figures:
        picture, legend = pictures[figure.name], (figure.legend + "\n").encode()
        files = {"svg": picture.svg, "png": picture.png, "csv": figure_csv(figure, mark), "txt": legend}
        for ending, content in files.items():
            owned.write(folder / f"{figure.name}.{ending}", content)


def write_tables(owned: Owned, folder: Path, tables: Sequence[Table], mark: Mark | None = None) -> None:
    """Each table as `NAME.csv`, in full precision.

    Raises
    ------
    OutputError : they cannot be written.
    """
    make_folder(folder)
    for table in tables:
        owned.write(folder / f"{table.name}.csv", table_csv(table, mark))


def table_csv(table: Table, mark: Mark | None = None) -> bytes:
    """A table as CSV in full precision."""
    return rows_csv(table.keys, table.rows, mark)


def figure_csv(figure: Figure, mark: Mark | None = None) -> bytes:
    """The numbers of a figure as CSV."""
    keys = list(figure.data)
    length = len(next(iter(figure.data.values()), []))
    return rows_csv(keys, [{k: figure.data[k][i] for k in keys} for i in range(length)], mark)


def rows_csv(keys: Sequence[str], rows: Sequence[Mapping[str, Any]], mark: Mark | None = None) -> bytes:
    """Rows as CSV, None as an empty cell; `mark` gives every row the same last columns."""
    last = dict(mark or {})
    lines = [[*("" if row.get(k) is None else row[k] for k in keys), *last.values()] for row in rows]
    return rows_bytes([[*keys, *last], *lines])
