"""AI-ENE: from a head-and-neck CT to its lymph nodes and their probability of extranodal extension.

Research software, not a medical device. What is named here is the public face; everything else may move.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aiene.cohort import RunSummary, Selection, run_cohort
    from aiene.errors import AieneError
    from aiene.geometry.grid import Grid, Volume
    from aiene.models.bundle import Bundle, find_bundle
    from aiene.prediction import NodePrediction, Result, load_results, predict

__all__ = [
    "AieneError",
    "Bundle",
    "Grid",
    "NodePrediction",
    "Result",
    "RunSummary",
    "Selection",
    "Volume",
    "find_bundle",
    "load_results",
    "predict",
    "run_cohort",
]

_HOMES = {
    "AieneError": "aiene.errors",
    "Bundle": "aiene.models.bundle",
    "Grid": "aiene.geometry.grid",
    "NodePrediction": "aiene.prediction",
    "Result": "aiene.prediction",
    "RunSummary": "aiene.cohort",
    "Selection": "aiene.cohort",
    "Volume": "aiene.geometry.grid",
    "find_bundle": "aiene.models.bundle",
    "load_results": "aiene.prediction",
    "predict": "aiene.prediction",
    "run_cohort": "aiene.cohort",
}


def __getattr__(name: str) -> Any:
    """Load a name's module when it is first asked for, so that `aiene --help` answers at once."""
    if name not in _HOMES:
        raise AttributeError(f"module 'aiene' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
