"""The page of a report: one HTML file, figures inside it, nothing to load from anywhere."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from aiene.errors import need
from aiene.report.document import CellTable, Document, Facts, Figure, Fold, Item, Table
from aiene.report.formatting import compose
from aiene.report.render import Picture

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
    width, height = png_size(picture.png)
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
    width = _width_pt(body)
    return f'{head} role="img" style="max-width:{width:.0f}pt"><title>{words}</title>{rest}'


def _width_pt(svg: str) -> float:
    box = re.search(r'viewBox="0 0 ([\d.]+) ', svg)
    return float(box.group(1)) if box else 480.0


def png_size(png: bytes) -> tuple[int, int]:
    """Width and height of a PNG, from its header."""
    return int.from_bytes(png[16:20]), int.from_bytes(png[20:24])
