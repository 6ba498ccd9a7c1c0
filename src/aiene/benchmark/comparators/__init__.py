"""What can be compared: one small protocol, one adapter a file."""

from aiene.benchmark.comparators.opening import open_comparator
from aiene.benchmark.comparators.protocol import Answer, CaseInput, Comparator, ModelFacts, Request

__all__ = ["Answer", "CaseInput", "Comparator", "ModelFacts", "Request", "open_comparator"]
