"""An analysis as files: JSON, CSV, SVG, PNG and one HTML page.

The page shows some parts at once and folds others away; all tables and figures have numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from aiene.parallel import OnProgress
from aiene.report.document import (
    Cell,
    CellPart,
    CellTable,
    Document,
    Facts,
    Figure,
    Fold,
    Item,
    Row,
    Section,
    Table,
    Text,
)
from aiene.report.formatting import NOTHING, plain, words
from aiene.report.write import draw_figures, page, rows_csv, write_figures, write_tables
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.records import Analysis

_SHOWN = re.compile(
    r"(flow|counts|migration|follow_up|missing|interaction|key_results|locked_models|multiplicity)"
    r"|table1_(?!hpv).*"
    r"|forest_.*_all|(cox|finegray)_.*_all|ph_.*_all"
    r"|(optimism|calibration|decision)_[a-z]+"
    r"|subgroups_[a-z]+"
)
"""Tables and figures that a reader of the whole report needs; the others are opened one chapter at a time.

Where a figure and a table have one of these names, the figure is shown.
"""
_TWINS = re.compile(r"flow|(calibration|decision|subgroups)_[a-z]+")
_CURVES = re.compile(r"(km|cif)_([a-z]+)_(.+?)(_hpv|_tests)?")
_OPEN = ("key-results", "derived", "thresholds", "methods")


def laid_out(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections with what is not needed at once folded away at the end of each."""
    return tuple(s if s.name in _OPEN else _folded(s) for s in sections)


def _folded(section: Section) -> Section:
    main = _main_curves(section)
    shown = [item for item in section.items if _is_shown(item, main)]
    if not any(isinstance(i, Table) and i.name.startswith("optimism_") for i in shown):  # nothing resampled
        shown += [i for i in section.tables if i.name.startswith("lrt_")]
    hidden = tuple(item for item in section.items if item not in shown)
    named = [item for item in hidden if isinstance(item, Table | Figure)]
    if not named:
        return section
    tables = sum(isinstance(item, Table) for item in named)
    figures = len(named) - tables
    counts = " and ".join(
        f"{n} {word}{'s' * (n > 1)}" for n, word in ((figures, "figure"), (tables, "table")) if n
    )
    return replace(section, items=(*shown, Fold(f"{section.title}: {counts} more", hidden)))


def _main_curves(section: Section) -> tuple[str, ...]:
    """Curves that are shown: by count and by combined groups; with death competing where it competes."""
    found = [m for i in section.figures if (m := _CURVES.fullmatch(i.name))]
    groupings = {m[3] for m in found}
    kind = "cif" if any(m[1] == "cif" for m in found) else "km"
    last = "combined" if "combined" in groupings else "marker"
    return (kind, "marker", last)


def _is_shown(item: Item, main: tuple[str, ...]) -> bool:
    if not isinstance(item, Table | Figure):
        return True
    if isinstance(item, Table) and _TWINS.fullmatch(item.name):
        return False
    curves = _CURVES.fullmatch(item.name)
    if not curves:
        return bool(_SHOWN.fullmatch(item.name))
    kind, _, grouping, suffix = curves.groups()
    if isinstance(item, Table):
        return kind == main[0] and grouping == main[2] and suffix is None
    return kind == main[0] and grouping in main[1:]


def numbered(sections: Sequence[Section]) -> tuple[tuple[Section, ...], dict[str, str]]:
    """Sections, tables and figures with their numbers before their titles; folded ones are S1, S2 and so on.

    Returns
    -------
    The sections, and the number by anchor (`tab-NAME`, `fig-NAME`, name of a section), such as "Table 3".
    """
    counts = dict.fromkeys(("Table ", "Figure ", "Table S", "Figure S"), 0)
    labels: dict[str, str] = {}

    def number(item: Item, folded: bool) -> Item:
        if isinstance(item, Fold):
            return replace(item, items=tuple(number(i, True) for i in item.items))
        if not isinstance(item, Table | Figure):
            return item
        word = f"{'Table' if isinstance(item, Table) else 'Figure'} {'S' if folded else ''}"
        counts[word] += 1
        label = f"{word}{counts[word]}"
        labels[f"{'tab' if isinstance(item, Table) else 'fig'}-{item.name}"] = label
        return replace(item, title=f"{label}. {item.title}")

    found = []
    for place, section in enumerate(sections, 1):
        labels[section.name] = f"Section {place}"
        items = tuple(number(item, False) for item in section.items)
        found.append(replace(section, title=f"{place}. {section.title}", items=items))
    return tuple(found), labels


def places(row: Mapping[str, object], labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where a checklist item is found: (number, anchor) of its section, then of its tables and figures."""
    shows = row.get("shows")
    anchors = [row.get("anchor"), *(shows if isinstance(shows, list | tuple) else ())]
    return [(labels[str(a)], str(a)) for a in anchors if str(a) in labels]


STAMP = "SIMULATED AI-ENE COUNT"
SIMULATED = f"{STAMP}: no finding about patients."
_BANNER = (
    f"{STAMP}: every result on this page that uses the count is made up for teaching or testing. "
    "No finding about patients."
)
_MARK = {"ai_ene_source": "simulated"}


def take_folder(out: Path, files: Sequence[str] = (), folders: Sequence[str] = ()) -> None:
    """Make sure of our places in a folder, without what an earlier analysis left: old and new never mix.

    It is called before the work, so that a place that cannot be written to is told at once.

    Parameters
    ----------
    files, folders : places beside those of `write_analysis`.

    Raises
    ------
    OutputError : it cannot be written.
    UsageError : files of the user's are in the way.
    """
    make_folder(out)
    owned = Owned(out)
    owned.check("analysis.json", "report.html", "methods.txt", "excluded.csv", *files)
    for folder in ("tables", "figures", *folders):
        owned.clear(out / folder)
        owned.claim(folder)
    for name in files:
        owned.remove(out / name)


def write_analysis(
    analysis: Analysis,
    out: Path,
    *,
    excluded: Sequence[Mapping[str, Any]],
    workers: int | None,
    on_progress: OnProgress | None = None,
) -> None:
    """Write everything into a folder.

    These are analysis.json, report.html, tables/, figures/, methods.txt and excluded.csv.

    Parameters
    ----------
    excluded : one row per patient that was left out.

    Raises
    ------
    OutputError : it cannot be written.
    """
    make_folder(out)
    owned = Owned(out)
    figures = [_marked(f, analysis) for f in analysis.figures.values()]
    mark = _MARK if analysis.simulated else None
    stamp = STAMP if analysis.simulated else ""
    pictures = draw_figures(figures, stamp=stamp, workers=workers, on_progress=on_progress)
    write_tables(owned, out / "tables", list(analysis.tables.values()), mark)
    write_figures(owned, out / "figures", figures, pictures, mark)
    owned.write(out / "excluded.csv", rows_csv(("patient_id", "step", "reason"), excluded))
    owned.write(out / "methods.txt", (analysis.methods + "\n").encode())
    owned.write_json(out / "analysis.json", content(analysis))
    text = page(document_of(analysis), pictures, figures="figures", tables="tables")
    owned.write(out / "report.html", text.encode())


def _marked(figure: Figure, analysis: Analysis) -> Figure:
    """A figure whose legend says where the count is simulated."""
    return replace(figure, legend=f"{SIMULATED} {figure.legend}") if analysis.simulated else figure


def content(analysis: Analysis) -> dict[str, Any]:
    """The analysis as JSON values: what `analysis.json` holds."""
    return {
        **plain(analysis.head),
        "simulated": analysis.simulated,
        "simulated_notice": SIMULATED if analysis.simulated else "",
        "exit_code": analysis.exit_code,
        "warnings": list(analysis.warnings),
        "skipped": [asdict(s) for s in analysis.skipped],
        "sections": [
            {"name": s.name, "title": s.title, "items": [_item(i) for i in s.items]}
            for s in analysis.sections
        ],
        "tables": {n: _table(t) for n, t in analysis.tables.items()},
        "figures": {n: _figure(_marked(f, analysis)) for n, f in analysis.figures.items()},
        "methods": analysis.methods,
        "checklists": plain(analysis.checklists),
    }


def _item(item: Item) -> dict[str, str]:
    if isinstance(item, Text):
        return {"text": item.words, "kind": item.kind}
    if isinstance(item, Table):
        return {"table": item.name}
    if isinstance(item, Figure):
        return {"figure": item.name}
    raise TypeError(f"an analysis has no {type(item).__name__}")


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "note": table.note,
        "columns": [asdict(c) for c in table.columns],
        "rows": plain(table.rows),
    }


def _figure(figure: Figure) -> dict[str, Any]:
    files = {kind: f"figures/{figure.name}.{kind}" for kind in ("svg", "png", "csv")}
    return {"title": figure.title, "legend": figure.legend, "files": files, "data": plain(figure.data)}


def document_of(analysis: Analysis) -> Document:
    """The page of an analysis; every number in it stands in `analysis.json` too."""
    head = plain(analysis.head)
    marked = [
        replace(s, items=tuple(_marked(i, analysis) if isinstance(i, Figure) else i for i in s.items))
        for s in analysis.sections
    ]
    sections, labels = numbered(
        [
            *(s for s in marked if s.boxed),
            Section("summary", "Summary", _summary(analysis, head)),
            *laid_out([s for s in marked if not s.boxed]),
            Section("methods", "Methods", tuple(Text(p) for p in analysis.methods.split("\n\n"))),
            *(Section(f"checklist-{number}", name, ()) for number, name in enumerate(analysis.checklists, 1)),
            Section("made-with", "Made with", (Fold("Versions and settings", (Facts(_made_with(head)),)),)),
        ]
    )
    lists = {f"checklist-{n}": rows for n, rows in enumerate(analysis.checklists.values(), 1)}
    sections = tuple(
        replace(s, items=(_checklist(lists[s.name], labels),)) if s.name in lists else s for s in sections
    )
    return Document(
        title=f"{head['title']} (SIMULATED)" if analysis.simulated else head["title"],
        lead=f"{head['date']}." if head["date"] else "",
        notice=head["notice"],
        sections=sections,
        banner=_BANNER if analysis.simulated else "",
        closing="All numbers of this page in full: analysis.json.",
    )


def _summary(analysis: Analysis, head: Mapping[str, Any]) -> tuple[Item, ...]:
    items: list[Item] = [Facts(tuple((row["name"], row["value"]) for row in head["summary"]))]
    if analysis.skipped:
        rows = tuple((words(row.what), words(row.reason)) for row in analysis.skipped)
        items.append(CellTable("Not done", ("What", "Why"), rows))
    return (*items, *(Text(line, kind="warning") for line in analysis.warnings))


def _checklist(rows: Sequence[Row], labels: Mapping[str, str]) -> CellTable:
    return CellTable(
        "Items and where they are found",
        ("Item", "Topic", "Section, table, figure", "What is found there", "Page of the manuscript"),
        tuple(
            (words(row["item"]), words(row["topic"]), _places(row, labels), _found(row), words(""))
            for row in rows
        ),
        (
            "On paper each page is headed by the number of its section. "
            "The last column is for the authors: the page of their manuscript that reports the item.",
        ),
    )


def _places(row: Row, labels: Mapping[str, str]) -> Cell:
    parts: list[CellPart] = []
    for label, anchor in places(row, labels):
        parts += [CellPart(", ")] if parts else []
        parts.append(CellPart(label, href=f"#{anchor}"))
    return Cell(tuple(parts) or (CellPart(NOTHING),), numeric=False)


def _found(row: Row) -> Cell:
    if not row["found"]:
        return Cell((CellPart("to be filled by the authors"),), numeric=False, alarm=True)
    return Cell((CellPart(str(row["found"])),), numeric=False)


def _made_with(head: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    rows = [*head["software"].items(), *head["settings"].items()]
    return tuple((name, _setting(value)) for name, value in rows)


def _setting(value: Any) -> str:
    if value is None or value in ("", []):
        return NOTHING
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
