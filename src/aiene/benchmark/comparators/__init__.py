"""What can be compared: one small protocol, one adapter a file."""

from aiene.benchmark.comparators.protocol import Answer, CaseInput, Comparator, ModelFacts, Request
from aiene.benchmark.models import open_comparator

__all__ = ["Answer", "CaseInput", "Comparator", "ModelFacts", "Request", "open_comparator"]
