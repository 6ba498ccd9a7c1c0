"""Write an analysis: every number once as JSON, every table and figure as its own file, and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aiene.cells import rows_bytes
from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Analysis, Figure, Item, Table, Text
from aiene.report.formatting import plain
from aiene.report.page import page
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned
from aiene.risk.analyse.charts import Picture, render

SIMULATED = "SIMULATED AI-ENE COUNT: no finding about patients."


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
    owned = Owned(out)
    for folder in (out, out / "tables", out / "figures"):
        make_folder(folder)
    pictures = _draw(analysis, workers, on_progress)
    for name, table in analysis.tables.items():
        owned.write(out / "tables" / f"{name}.csv", table_csv(table, simulated=analysis.simulated))
    for name, figure in analysis.figures.items():
        base = out / "figures" / name
        owned.write(base.with_suffix(".svg"), pictures[name].svg)
        owned.write(base.with_suffix(".png"), pictures[name].png)
        owned.write(base.with_suffix(".csv"), figure_csv(figure, simulated=analysis.simulated))
        owned.write(base.with_suffix(".txt"), (legend(figure, simulated=analysis.simulated) + "\n").encode())
    owned.write(out / "excluded.csv", _csv(("patient_id", "step", "reason"), excluded))
    owned.write(out / "methods.txt", (analysis.methods + "\n").encode())
    owned.write_json(out / "analysis.json", content(analysis))
    owned.write(out / "report.html", page(analysis, {n: p.svg for n, p in pictures.items()}).encode())


def _draw(analysis: Analysis, workers: int | None, on_progress: OnProgress | None) -> dict[str, Picture]:
    jobs = [
        Job(f"figure {name}", _render, (f.kind, f.content, analysis.simulated), 20)
        for name, f in analysis.figures.items()
    ]
    return dict(zip(analysis.figures, run_jobs(jobs, workers=workers, on_progress=on_progress), strict=True))


def _render(kind: str, drawn: Mapping[str, Any], simulated: bool) -> Picture:
    return render(kind, drawn, simulated=simulated)


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
        "figures": {n: _figure(f, simulated=analysis.simulated) for n, f in analysis.figures.items()},
        "methods": analysis.methods,
        "checklists": plain(analysis.checklists),
    }


def _item(item: Item) -> dict[str, str]:
    if isinstance(item, Text):
        return {"text": item.words, "kind": item.kind}
    return {"table" if isinstance(item, Table) else "figure": item.name}


def _table(table: Table) -> dict[str, Any]:
    return {
        "title": table.title,
        "note": table.note,
        "columns": [asdict(c) for c in table.columns],
        "rows": plain(table.rows),
    }


def _figure(figure: Figure, *, simulated: bool) -> dict[str, Any]:
    files = {kind: f"figures/{figure.name}.{kind}" for kind in ("svg", "png", "csv")}
    return {
        "title": figure.title,
        "legend": legend(figure, simulated=simulated),
        "kind": figure.kind,
        "files": files,
        "data": plain(figure.data),
    }


def legend(figure: Figure, *, simulated: bool) -> str:
    """The sentence below a figure."""
    return f"{SIMULATED} {figure.legend}" if simulated else figure.legend


def table_csv(table: Table, *, simulated: bool) -> bytes:
    """A table as CSV in full precision; a column says where the count is simulated."""
    keys = (*table.keys, "ai_ene_source") if simulated else table.keys
    rows = [{**row, "ai_ene_source": "simulated"} if simulated else row for row in table.rows]
    return _csv(keys, rows)


def figure_csv(figure: Figure, *, simulated: bool) -> bytes:
    """The numbers of a figure as CSV."""
    keys = list(figure.data)
    length = len(next(iter(figure.data.values()), []))
    rows = [{k: figure.data[k][i] for k in keys} for i in range(length)]
    if simulated:
        keys, rows = [*keys, "ai_ene_source"], [r | {"ai_ene_source": "simulated"} for r in rows]
    return _csv(keys, rows)


def _csv(keys: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bytes:
    return rows_bytes([keys, *(["" if row.get(k) is None else row[k] for k in keys] for row in rows)])
