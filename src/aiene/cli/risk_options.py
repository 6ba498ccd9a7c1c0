"""The words that the commands of `aiene risk` share, and how they tell what was understood."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

import typer

from aiene.cli.console import RESEARCH_ONLY, echo, print_table, stderr_console
from aiene.cli.console import echo_json as echo_any_json
from aiene.errors import UsageError, counted

if TYPE_CHECKING:
    import pandas as pd

    from aiene.parallel import Progress
    from aiene.risk.analyse.records import Analysis
    from aiene.risk.importers.registry import Imported
    from aiene.risk.importers.source import PreviewLine
    from aiene.risk.join import Joined
    from aiene.risk.staging.stage import Definition, StagingOptions


TableArgument = Annotated[
    Path, typer.Argument(metavar="TABLE", help="One row per patient: .csv, .tsv, .xlsx or .parquet.")
]
FromOption = Annotated[
    str,
    typer.Option(
        "--from",
        help="Source of the table: canonical, radcure, opc-radiomics, head-neck-pet-ct, hnscc, hn1, hecktor, "
        "or "
        "generic with --map.",
    ),
]
MapOption = Annotated[
    Path | None,
    typer.Option("--map", help="Mapping file for your own table (aiene risk import --template writes one)."),
]


@dataclass(frozen=True)
class Reading:
    """Whose table a clinical table is, and what its reader must be told."""

    source: FromOption = "canonical"
    mapping: MapOption = None
    lenient: Annotated[
        bool,
        typer.Option(
            "--lenient",
            help="Treat impossible values as missing, with a warning, instead of refusing the table.",
        ),
    ] = False
    sheet: Annotated[str | None, typer.Option(help="Sheet of an Excel workbook.")] = None
    origin: Annotated[
        Literal["diagnosis", "rt_start", "rt_end"] | None,
        typer.Option(help="Start of the follow-up time, if the collection leaves a choice."),
    ] = None
    edition: Annotated[
        Literal["7", "8"] | None, typer.Option(help="TNM edition of T and N, if the table does not state it.")
    ] = None
    hpv_one_is: Annotated[
        Literal["positive", "negative"] | None,
        typer.Option("--hpv-one-is", help="Meaning of HPV = 1, if the data dictionary does not state it."),
    ] = None
    possible_is_event: Annotated[
        bool, typer.Option("--possible-is-event", help="Count the `Possible` failures of RADCURE as events.")
    ] = False
    default_site: Annotated[
        str | None,
        typer.Option(
            "--default-site", help="Site of all patients, if the table has no site, such as oropharynx."
        ),
    ] = None


@dataclass(frozen=True)
class OwnReading(Reading):
    """The same, where the table is one's own unless another source is named."""

    source: FromOption = "generic"


@dataclass(frozen=True)
class StagingChoices:
    """What the user decides where the rules of staging leave a choice; see `StagingOptions`."""

    assume_m0: Annotated[
        bool, typer.Option("--assume-m0", help="Treat MX and missing M as M0; these patients are flagged.")
    ] = False
    ene_unknown: Annotated[
        Literal["unknown", "negative"],
        typer.Option(
            help="p16-negative with unknown clinical ENE: keep as unknown, or treat as negative and flag."
        ),
    ] = "unknown"
    hpv_unknown: Annotated[
        Literal["p16_negative", "unknown"],
        typer.Option(
            help="HPV not known: stage by the p16-negative tables of AJCC-8 and flag, or leave unknown."
        ),
    ] = "p16_negative"
    iene_from_ai: Annotated[
        bool,
        typer.Option(
            "--iene-from-ai", help="Version 9: use AI-ENE where no reader graded ENE (exploratory)."
        ),
    ] = False

    def options(self, rtog: Definition) -> StagingOptions:
        """The options of the staging, with a definition of the RTOG-0129 groups."""
        from aiene.risk.staging.stage import StagingOptions

        return StagingOptions(self.assume_m0, self.ene_unknown, self.hpv_unknown, rtog, self.iene_from_ai)


def with_records(command: Callable[..., None]) -> Callable[..., None]:
    """A command for typer: each parameter that is a record of options is spread into an option a field."""
    signature = inspect.signature(command, eval_str=True)
    records: dict[str, Any] = {
        p.name: p.annotation for p in signature.parameters.values() if is_dataclass(p.annotation)
    }
    shown: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        record = records.get(parameter.name)
        if record is None:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))
            continue
        hints = get_type_hints(record, include_extras=True)
        shown += [
            inspect.Parameter(
                f.name, inspect.Parameter.KEYWORD_ONLY, default=f.default, annotation=hints[f.name]
            )
            for f in fields(record)
        ]

    @wraps(command)
    def spread(**given: Any) -> None:
        for name, record in records.items():
            given[name] = record(**{f.name: given.pop(f.name) for f in fields(record)})
        command(**given)

    spread.__annotations__ = {}
    spread.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    return spread


AiEneOption = Annotated[
    Path | None,
    typer.Option(
        "--ai-ene", help="Results folder of aiene run (or its patients.csv), to join the AI-ENE counts."
    ),
]
ReviewedOption = Annotated[
    bool, typer.Option("--reviewed", help="Use the counts of --ai-ene OUT as corrected by a reader.")
]
SchemeOption = Annotated[str, typer.Option(help="Scheme file, or the name of an included scheme.")]
RtogOption = Annotated[
    Literal["fakhry2019", "ang2010"], typer.Option(help="Published definition of the RTOG-0129 groups.")
]

SIMULATED = "SIMULATED: the AI-ENE counts of this table are not real."


def read(table: Path, reading: Reading) -> Imported:
    """The table, whoever's it is; what should be looked at goes to stderr."""
    from aiene.risk.importers.registry import import_table
    from aiene.risk.importers.source import ImportOptions

    name = "generic" if reading.mapping is not None and reading.source == "canonical" else reading.source
    options = ImportOptions(
        reading.possible_is_event, reading.origin, reading.edition, reading.hpv_one_is, reading.sheet
    )
    site = reading.default_site
    imported = import_table(table, name, reading.mapping, reading.lenient, options=options, default_site=site)
    for note in imported.notes:
        stderr_console().print(f"note: {note}")
    tell_warnings(imported.warnings)
    return imported


def join(
    imported: Imported, ai_ene: Path | None, id_pattern: str | None
) -> tuple[pd.DataFrame, Joined | None]:
    """The table with the run's counts, where a run is named; both lists of those without partner are told."""
    from aiene.risk.join import join_ai_ene

    if ai_ene is None:
        if id_pattern is not None:
            raise UsageError("--id-pattern belongs to --ai-ene.")
        return imported.table, None
    joined = join_ai_ene(imported.table, ai_ene, id_pattern=id_pattern)
    tell_warnings(joined.warnings)
    tell_unmatched(joined)
    if joined.table["n_ai_ene"].isna().all():
        raise UsageError(f"{ai_ene.name}: the run has no count for any patient of the table; see its status.")
    return joined.table, joined


def counts_of(ai_ene: Path | None, reviewed: bool) -> Path | None:
    """The run's own counts, or those of its review; the folder of a reader names one of several."""
    from aiene.results.reviews import one_reader

    if not reviewed:
        return ai_ene
    if ai_ene is None or not ai_ene.is_dir():
        raise UsageError("--reviewed belongs to --ai-ene OUT, the folder of a run that was reviewed.")
    return ai_ene if (ai_ene / "cases").is_dir() and ai_ene.parent.name == "review" else one_reader(ai_ene)


def tell_warnings(warnings: Sequence[str]) -> None:
    """One line for each."""
    console = stderr_console()
    for warning in warnings:
        console.print(f"warning: {warning}", style="yellow")


def tell_unmatched(joined: Joined) -> None:
    """Both lists of ids without a partner."""
    from aiene.risk.table.values import listed

    console = stderr_console()
    console.print(f"{counted(joined.matched, 'patient')} matched with the run")
    for ids, where in ((joined.only_table, "only in the table"), (joined.only_ai, "only in the run")):
        if ids:
            console.print(f"{len(ids)} {where}: {listed(ids, shown=10)}", style="yellow")


def tell_end(table: pd.DataFrame) -> None:
    """That counts are simulated, if so, and what the software is not."""
    console = stderr_console()
    if simulated(table):
        console.print(SIMULATED, style="bold red")
    console.print(RESEARCH_ONLY, style="bold")


def simulated(table: pd.DataFrame) -> bool:
    """Whether a count of the table is simulated."""
    return bool((table["ai_ene_source"] == "simulated").fillna(False).any())


def print_preview(lines: Sequence[PreviewLine]) -> None:
    """What was understood, column by column, on stdout."""
    from rich.table import Table

    table = Table(title="What was understood", caption=RESEARCH_ONLY)
    for name in ("column", "from", "understood", "known", "missing", "codes"):
        table.add_column(name, overflow="fold", justify="right" if name in ("known", "missing") else "left")
    for line in lines:
        codes = ", ".join(f"{raw or '(blank)'} = {word} ({n})" for raw, word, n in line.codings)
        table.add_row(
            line.column, line.source, line.understood, str(line.n_known), str(line.n_missing), codes
        )
    print_table(table, width=150)


def counts(table: pd.DataFrame, columns: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each word stands in some columns, the most frequent first."""
    return {
        column: {str(word): int(n) for word, n in table[column].fillna("missing").value_counts().items()}
        for column in columns
    }


def print_counts(found: dict[str, dict[str, int]]) -> None:
    """Counts on stdout."""
    for column, words in found.items():
        echo(f"{column}: " + ", ".join(f"{word} {n}" for word, n in words.items()))


def write_with_record(table: pd.DataFrame, out: Path, record: dict[str, Any]) -> None:
    """A table, and beside it `NAME.json`, that says how it came about."""
    from importlib.metadata import version

    from aiene.results import ownership
    from aiene.risk.table.files import table_bytes

    if record.get("simulated"):
        record = {"SIMULATED": SIMULATED, **record}
    document = {"research_only": RESEARCH_ONLY, "aiene": version("aiene"), **record}
    beside = ownership.write_with_record(out, table_bytes(table, out), document)
    stderr_console().print(f"table written: {out}; how it was made: {beside.name}")


def echo_json(content: dict[str, Any]) -> None:
    """JSON on stdout."""
    echo_any_json({"research_only": RESEARCH_ONLY, **content})


@contextmanager
def progress() -> Iterator[Callable[[Progress], None]]:
    """What the analysis does: a bar on a terminal, else a line every some seconds."""
    console = stderr_console()
    if not console.is_terminal:
        yield lines_of_progress(console.print)
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.percentage:>3.0f} %"), BarColumn(), TimeElapsedColumn(),
               TextColumn("{task.description}"))  # fmt: skip
    with Bar(*columns, console=console, transient=True) as bar:
        task = bar.add_task("analysing", total=None)

        def follow(step: Progress) -> None:
            bar.update(task, description=step.what, completed=step.done, total=step.total)

        yield follow


_EVERY_S = 10.0
"""Between two lines of progress, so that a log of hours stays short."""


def lines_of_progress(
    write: Callable[[str], None], clock: Callable[[], float] = time.monotonic
) -> Callable[[Progress], None]:
    """A function that tells how far an analysis is: at once, and then every ten seconds.

    Parameters
    ----------
    write : takes a line.
    clock : seconds that never go back.
    """
    began, told_at = clock(), -_EVERY_S

    def follow(step: Progress) -> None:
        nonlocal told_at
        now = clock() - began
        if now - told_at < _EVERY_S:
            return
        told_at = now
        write(f"{step.done / max(step.total, 1e-9):4.0%}  {now:4.0f} s  {step.what}")

    return follow


def tell_report(
    made: Analysis, out: Path, table: pd.DataFrame, found: Imported, joined: Joined | None, *, as_json: bool
) -> int:
    """Warnings, what was not done, and where the report is; the exit code, 1 where something is not there."""
    console = stderr_console()
    tell_warnings(made.warnings)
    for skipped in made.skipped:
        console.print(f"not done: {skipped.what}: {skipped.reason}")
    console.print(
        f"{counted(len(made.tables), 'table')} and {counted(len(made.figures), 'figure')}; report in {out}"
    )
    if as_json:
        echo_json(
            {
                "exit_code": made.exit_code,
                "simulated": simulated(table),
                "report": str(out / "report.html"),
                "analysis": str(out / "analysis.json"),
                "tables": sorted(made.tables),
                "figures": sorted(made.figures),
                "skipped": [{"what": s.what, "reason": s.reason} for s in made.skipped],
                "warnings": list(made.warnings),
            }
        )
    tell_end(table)
    return max(made.exit_code, int(bool(found.dropped) or bool(joined and joined.only_table)))
