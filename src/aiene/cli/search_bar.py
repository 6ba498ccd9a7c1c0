"""How far the search through an input is, as a bar on stderr that goes away at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from aiene.cli.console import stderr_console

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
