"""Files of a report: every figure as SVG, PNG, CSV and its legend, every table as CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aiene.csv_tables import rows_bytes
from aiene.parallel import Job, OnProgress, run_jobs
from aiene.report.document import Figure, Table
from aiene.report.render import Picture, render
from aiene.results.atomic import make_folder
from aiene.results.ownership import Owned

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
