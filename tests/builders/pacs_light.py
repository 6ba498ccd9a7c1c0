"""Work for a listener in a process of its own: that process loads no more than a true one does."""

from __future__ import annotations

from importlib import import_module

from aiene.pacs.config import Settings
from aiene.pacs.queue import Outcome


def planted_work(settings: Settings, name: str, generation: int) -> Outcome:
    """See `pacs_site.planted_work`, which is loaded where the work is done."""
    outcome: Outcome = import_module("builders.pacs_site").planted_work(settings, name, generation)
    return outcome


def no_work(settings: Settings, name: str, generation: int) -> Outcome:
    """Where receiving alone is looked at."""
    return Outcome("done")
