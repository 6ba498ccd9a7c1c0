"""The error of a number that the data cannot give."""

from __future__ import annotations

from aiene.errors import ProblemError


class NotEstimableError(ProblemError):
    """The data hold too little for this quantity."""
