"""The error of a number that the data cannot give."""

from __future__ import annotations

from aiene.errors import AieneError


class NotEstimableError(AieneError):
    """The data hold too little for this quantity.

    Parameters
    ----------
    problem : what is missing, without a full stop.
    remedy : what the user can do, without a full stop.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(problem, remedy)
        self.problem, self.remedy = problem, remedy

    def __str__(self) -> str:
        return f"{self.problem}; {self.remedy}."
