"""The page: one file, figures inside it, nothing to load from anywhere."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from aiene.benchmark.report.record import Chart, Section, Table
from aiene.benchmark.report.render import Picture
from aiene.extras import need


def page(
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
        {"name": one.name, "title": one.title, "items": [_item(item, pictures) for item in one.items]}
        for one in sections
    ]
    template = environment.get_template("report.html.j2")
    return str(template.render(title=title, lead=lead, notice=notice, sections=shown, folder=folder))


def _item(item: Any, pictures: Mapping[str, Picture]) -> dict[str, Any]:
    if isinstance(item, Table):
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
