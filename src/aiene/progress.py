"""How far a call from Python is: a bar in a terminal or notebook, or a function of the caller's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

OnProgress: TypeAlias = Callable[[int, int, str], object]
"""Told how many of how many are done, and in words what was done last."""


def follower(progress: bool | OnProgress, *, unit: str) -> OnProgress:
    """The function that a long call tells its steps to.

    Parameters
    ----------
    progress : False shows nothing; True shows a tqdm bar, which a notebook draws as its own; or the caller's
        function `(done, total, words)`, called after each step.
    unit : what is counted: `case` or `stage`.
    """
    if progress is True:
        return _Bar(unit)
    return progress or _nothing


def by_case(progress: bool | OnProgress, on_case: Callable[[Any], None]) -> Callable[[Any], None]:
    """What a run of many cases calls after each: `follower` in words, then `on_case` with all that is known.

    Both get it from a `cohort.Progress`.
    """
    tell = follower(progress, unit="case")

    def told(step: Any) -> None:
        tell(step.number, step.total, f"{step.result.case_id}: {step.result.status}")
        on_case(step)

    return told


def _nothing(done: int, total: int, words: str) -> None:
    """Show nothing."""


class _Bar:
    """A tqdm bar that appears with the first step and is closed by the last; an error leaves it as it is."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None

    def __call__(self, done: int, total: int, words: str) -> None:
        from tqdm.auto import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc="AI-ENE", unit=self._unit)
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
