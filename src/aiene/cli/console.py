"""How the command line speaks: messages to stderr, errors as one sentence, results as a table."""

from __future__ import annotations

import json
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from aiene.csv_tables import probability_text
from aiene.errors import AieneError, OutputError, UsageError, counted, is_hidden, visible
from aiene.report import document

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from aiene.cohort import Progress, RunSummary
    from aiene.export.run import ExportProgress


log = logging.getLogger(__name__)

RESEARCH_ONLY = document.RESEARCH_ONLY


@contextmanager
def user_errors(program: str = "aiene") -> Iterator[None]:
    """An error of the user's becomes its sentence on stderr and an exit code; a bug keeps its traceback.

    Exit code 2 is wrong use; 1 where results could not be written, so that some cases are not done; 130
    where the user stopped it (Ctrl-C) and 143 where the system did (SIGTERM), also if a library made another
    error out of the interruption.
    """
    stops: list[int] = []
    with _noting_interrupts(stops):
        try:
            yield
        except AieneError as error:
            if not stops:
                echo(f"{program}: {error}", err=True)
                raise typer.Exit(1 if isinstance(error, OutputError) else 2) from error
            _tell_stopped(program, stops)
        except (Exception, KeyboardInterrupt) as error:
            if not stops and not isinstance(error, KeyboardInterrupt):
                raise
            _tell_stopped(program, stops)


def _tell_stopped(program: str, stops: list[int]) -> NoReturn:
    typer.echo(f"{program}: stopped; the same command continues from here.", err=True)
    raise typer.Exit(128 + (stops[0] if stops else signal.SIGINT)) from None


@contextmanager
def _noting_interrupts(stops: list[int]) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt as always, SIGTERM too, and either is noted in `stops`.

    A first one leaves time to write what is done; a second one ends that too.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
        stops.append(number)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
RunFolder = Annotated[Path, typer.Argument(metavar="OUT", help="The results folder of aiene run.")]
DeviceOption = Annotated[
    str, typer.Option("-d", "--device", help="Where to compute: auto, cpu, cuda, cuda:N or mps.")
]
IdPatternOption = Annotated[
    str | None,
    typer.Option("--id-pattern", help="Regular expression that finds the patient id in a case id."),
]
SchedulerOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHERE",
        help="Compute on Dask workers: local, slurm, tcp://HOST:8786 or a .yaml file. They must see the "
        "same folders.",
    ),
]


def echo(text: str, *, err: bool = False) -> None:
    """Text of ours on stdout or stderr; no name in it can do anything to the terminal."""
    typer.echo(visible(text, keep="\n\t"), err=err)


def echo_json(content: Any) -> None:
    """JSON on stdout; characters that a terminal would obey are escaped as JSON does."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    typer.echo("".join(f"\\u{ord(c):04x}" if c != "\n" and is_hidden(c) else c for c in text))


def stderr_console() -> Console:
    """Where messages and progress go; no name in a text can do anything to the terminal."""
    from rich.console import Console

    class Visible(Console):
        def print(self, *objects: Any, **options: Any) -> None:
            shown = (visible(o, keep="\n\t") if isinstance(o, str) else o for o in objects)
            super().print(*shown, **options)

    return Visible(file=sys.stderr, highlight=False, soft_wrap=True, markup=False)


def print_table(table: Table, *, width: int) -> None:
    """A table on stdout, its texts as they are; `width` where that is no terminal."""
    from rich.console import Console

    Console(width=None if sys.stdout.isatty() else width, markup=False).print(table)


class RunProgress:
    """How far a run is: a bar on a terminal; on a pipe the same words at the end of each case's line.

    Parameters
    ----------
    console : of stderr.
    quiet : only failed cases are told.
    verbose : the seconds of every stage are told too.
    """

    def __init__(self, console: Console, *, quiet: bool = False, verbose: bool = False) -> None:
        self._console, self._quiet, self._verbose = console, quiet, verbose
        self._began = time.monotonic()
        self._worked = 0
        self._bar: Any = None

    def __enter__(self) -> RunProgress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, step: Progress) -> None:
        """A case that is done."""
        self._worked += not step.reused and step.result.status != "skipped"
        line = case_line(step)
        log.info("%s", line)
        for warning in step.result.warnings:
            log.info("    warning: %s", warning)
        if self._quiet and step.result.status != "failed":
            return
        pace = "" if self._quiet else self._pace(step)
        if self._console.is_terminal and not self._quiet:
            self._move(step, pace)
            pace = ""
        tell_case(self._console, step, pace)
        if self._verbose and step.result.seconds and not step.reused:
            stages = ", ".join(f"{stage} {taken:.1f} s" for stage, taken in step.result.seconds.items())
            self._console.print(f"    {stages}", markup=False, style="dim")

    def _pace(self, step: Progress) -> str:
        """Seconds a case, time left and device; nothing before a case was worked on, or after the last."""
        left = step.total - step.number
        if not self._worked or not left:
            return ""
        pace = (time.monotonic() - self._began) / self._worked
        return f"{pace:.1f} s a case, {duration(pace * left)} left, {step.device}"

    def _move(self, step: Progress, pace: str) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        if self._bar is None:
            columns = (
                TextColumn("cases"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[pace]}"),
            )
            self._bar = Bar(*columns, console=self._console, transient=True)
            self._bar.add_task("cases", total=step.total, pace="")
            self._bar.start()
        self._bar.update(self._bar.task_ids[0], completed=step.number, pace=pace, refresh=True)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def case_line(step: Progress) -> str:
    """What became of a case, in a line."""
    result = step.result
    taken = "already done" if step.reused else f"{sum(result.seconds.values()):.1f} s"
    found = {
        "ok": f"{counted(len(result.nodes), 'node')}, {result.n_ai_ene} with ENE ({taken})",
        "no_nodes": f"no nodes ({taken})",
    }.get(result.status, f"{result.status}: {result.reason}")
    return f"[{step.number}/{step.total}] {result.case_id}: {found}"


def tell_case(console: Console, step: Progress, pace: str = "") -> None:
    """One line for a case that is done, and one for each of its warnings."""
    line = f"{case_line(step)}  [{pace}]" if pace else case_line(step)
    _tell_line(console, line, step.result.status == "failed", step.result.warnings)


def _tell_line(console: Console, line: str, failed: bool, warnings: Sequence[str]) -> None:
    console.print(line, markup=False, style="red" if failed else None)
    for warning in warnings:
        console.print(f"    warning: {warning}", markup=False, style="yellow")


def print_nodes(summary: RunSummary) -> None:
    """The nodes of a run as a table on stdout, with what it is and is not."""
    from rich.table import Table

    title = f"Lymph nodes and their probability of extranodal extension: {summary.rule.sentence}"
    table = Table(title=title, caption=f"{summary.notice} {RESEARCH_ONLY}", caption_style="bold red")
    for name in _COLUMNS:
        table.add_column(name, justify="right" if name in _NUMBERS else "left")
    for result in summary.results:
        for node in result.nodes:
            verdict = {1: "yes", 0: "no", None: "-"}[node.ene_classification]
            volume = f"{node.native_volume_mm3:.0f}"
            axes = (
                "-" if mm is None else f"{mm:.1f}"
                for mm in (node.native_short_axis_mm, node.native_long_axis_mm)
            )
            pos = probability_text(node.pos, (summary.rule.pos_from,), missing="-")
            ene = probability_text(node.ene, (summary.rule.ene_threshold,), missing="-")
            table.add_row(result.case_id, node.name, node.side, volume, *axes, pos, ene, verdict)
        if not result.nodes:
            table.add_row(result.case_id, result.status, *[""] * (len(_COLUMNS) - 2))
    print_table(table, width=110)


_NUMBERS = ("volume mm3", "short mm", "long mm", "pos", "ene")
_COLUMNS = ("case", "name", "side", *_NUMBERS, "AI-ENE")
_EVERY = 50  # files between two looks at the clock: a search looks at some thousand a second


@contextmanager
def search_bar() -> Iterator[Callable[[int, int], None]]:
    """A function for `find_cases(on_progress=...)`; silent where stderr is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = stderr_console()
    columns = (TextColumn("looking at files"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("search", total=None)

        def show(done: int, total: int) -> None:
            if done % _EVERY == 0 or done == total:
                bar.update(task, completed=done, total=total)
            if done == total:
                bar.stop()  # what follows writes to the same terminal

        yield show


@contextmanager
def logging_to(file: Path | None) -> Iterator[None]:
    """What the package logs goes to a file too, added at its end; tracebacks then go there alone.

    Raises
    ------
    UsageError : the file cannot be written.
    """
    if file is None:
        yield
        return
    try:
        handler = logging.FileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise UsageError(f"--log-file {file.name}: it cannot be written ({error.strerror}).") from error
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours = logging.getLogger("aiene")
    level, propagates = ours.level, ours.propagate
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    ours.propagate = False
    try:
        yield
    finally:
        ours.removeHandler(handler)
        handler.close()
        ours.setLevel(level)
        ours.propagate = propagates


def device_of(gpu: str) -> str:
    """`--gpu cpu|auto|0` in the words of `--device`.

    Raises
    ------
    UsageError : another word.
    """
    if gpu in ("cpu", "auto"):
        return gpu
    if gpu.isdigit():
        return f"cuda:{gpu}"
    raise UsageError(f"--gpu {gpu}: use cpu, auto or the number of a GPU.")


def tell_row(console: Console, step: ExportProgress) -> None:
    """One line for a case that is done, and one for each of its warnings."""
    row = step.row
    found = f"{counted(len(row.files), 'object')} ({row.seconds:.1f} s)" if row.status == "ok" else row.reason
    line = f"[{step.number}/{step.total}] {row.case_id}: {row.status}, {found}"
    _tell_line(console, line, row.status == "failed", row.warnings)


def picked(record: object, *names: str) -> dict[str, Any]:
    """Some attributes of a record by their names."""
    return {name: getattr(record, name) for name in names}


def tally(counts: Mapping[str, int]) -> str:
    """`2 ok, 1 failed`, without those of which there are none."""
    return ", ".join(f"{count} {status}" for status, count in counts.items() if count)
