"""The page: one file, figures inside it, nothing to load from anywhere."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from aiene.extras import need
from aiene.report.document import Analysis, CellTable, Chart, Figure, Item, Row, Table, Text
from aiene.report.document import Chapter as Section
from aiene.report.formatting import cell_text, plain
from aiene.report.render import Picture


def page(analysis: Analysis, pictures: Mapping[str, bytes]) -> str:
    """The report as HTML; every number in it stands in `analysis.json` too.

    Parameters
    ----------
    pictures : SVG of each figure by its name.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    jinja2 = need("jinja2", extra="risk", purpose="The report")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aiene.risk.analyse", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    template = environment.get_template("report.html.j2")
    sections = [
        {
            "name": s.name,
            "title": s.title,
            "items": [_item(i, pictures, analysis.simulated, environment) for i in s.items],
        }
        for s in analysis.sections
    ]
    return str(
        template.render(
            head=plain(analysis.head),
            simulated=analysis.simulated,
            warnings=analysis.warnings,
            skipped=analysis.skipped,
            sections=sections,
            methods=analysis.methods,
            checklists=plain(analysis.checklists),
        )
    )


def _item(item: Item, pictures: Mapping[str, bytes], simulated: bool, environment: Any) -> dict[str, Any]:
    if isinstance(item, Text):
        return {"is": "text", "words": item.words, "kind": item.kind}
    if isinstance(item, Table):
        shown = _without_empty(item)
        return {
            "is": "table",
            "table": shown,
            "rows": _cells(shown),
            "numeric": [c.kind != "text" for c in shown.columns],
        }
    from aiene.report.write import legend

    svg = inline_svg(pictures[item.name].decode(), item)
    return {
        "is": "figure",
        "figure": item,
        "legend": legend(item, simulated=simulated),
        "svg": environment.from_string("{{ svg | safe }}").render(svg=svg),
    }


def _without_empty(table: Table) -> Table:
    """Without columns that say nothing in any row."""
    columns = tuple(c for c in table.columns if any(row.get(c.key) not in (None, "") for row in table.rows))
    return replace(table, columns=columns or table.columns[:1])


def _cells(table: Table) -> list[list[str]]:
    """The shown text of each cell; a repeated head of a row is shown once."""
    shown = []
    before: Row | None = None
    for row in table.rows:
        cells = [cell_text(row, c) for c in table.columns]
        if before is not None:
            for place, column in enumerate(table.columns):
                if column.kind != "text" or row.get(column.key) != before.get(column.key) or place > 1:
                    break
                cells[place] = ""
        shown.append(cells)
        before = row
    return shown


_ID = re.compile(r'(\bid="|url\(#|href="#)')


def inline_svg(svg: str, figure: Figure) -> str:
    """The drawing without its prologue, its ids made its own, with a title for readers who cannot see it."""
    body = svg[svg.index("<svg") :]
    body = _ID.sub(rf"\g<1>{figure.name}-", body)
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    head, rest = body.split(">", 1)
    head = re.sub(r'\s(width|height)="[^"]*"', "", head)
    words = figure.title.replace("&", "&amp;").replace("<", "&lt;")
    width = _width_pt(body)
    return f'{head} role="img" style="max-width:{width:.0f}pt"><title>{words}</title>{rest}'


def _width_pt(svg: str) -> float:
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    return float(box.group(1)) if box else 480.0


# The page: one file, figures inside it, nothing to load from anywhere.


def chapter_page(
    title: str,
    lead: str,
    notice: str,
    sections: Sequence[Section],
    pictures: Mapping[str, Picture],
    folder: str,
) -> str:
    """The report as HTML.

    Parameters
    ----------
    pictures : of each chart by its name.
    folder : name of the folder of the charts' files.

    Raises
    ------
    MissingExtraError : jinja2 is not installed.
    """
    jinja2 = need("jinja2", extra="benchmark", purpose="The report of a benchmark")
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("aiene.benchmark.report", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    shown = [
        {"name": one.name, "title": one.title, "items": [_chapter_item(item, pictures) for item in one.items]}
        for one in sections
    ]
    template = environment.get_template("report.html.j2")
    return str(template.render(title=title, lead=lead, notice=notice, sections=shown, folder=folder))


def _chapter_item(item: Any, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    if isinstance(item, CellTable):
        return {"is": "table", "item": item}
    if isinstance(item, Chart):
        picture = pictures[item.name]
        kind, content = ("image/png", picture.png) if item.photographic else ("image/svg+xml", picture.svg)
        width, height = png_size(picture.png)
        scale = 0.8 if item.photographic else 0.66
        return {
            "is": "chart",
            "item": item,
            "source": f"data:{kind};base64,{b64encode(content).decode()}",
            "width": round(width * scale),
            "height": round(height * scale),
        }
    return {"is": "text", "item": item}


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
