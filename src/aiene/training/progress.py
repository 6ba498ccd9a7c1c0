"""What a training tells while it runs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Step:
    """A step that is done.

    Parameters
    ----------
    stage : `prepare`, `plan`, `preprocess`, `train`, `validate`, ...
    done, of : how many of how many; 0 of 0 where a stage has no steps.
    seconds : since the stage began in this call.
    first : the step at which this call began, so that the time left can be told.
    said : figures of the step, by name.
    """

    stage: str
    done: int
    of: int
    seconds: float = 0.0
    first: int = 0
    said: dict[str, float] = field(default_factory=dict)

    @property
    def seconds_left(self) -> float | None:
        """At the pace of this call; None before the first step, or where there are none."""
        here = self.done - self.first
        if not self.of or here <= 0 or self.seconds <= 0:
            return None
        return self.seconds / here * (self.of - self.done)


OnStep = Callable[[Step], None]
OnNote = Callable[[str], None]
"""Told a sentence that the user should know, though nothing is wrong enough to stop."""
