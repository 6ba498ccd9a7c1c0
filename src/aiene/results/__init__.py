"""What a run leaves: records of cases, tables, masks on the native CT, provenance."""

from aiene.results.records import CaseResult, NodeResult, Status
from aiene.results.store import CaseArrays, RunStore

__all__ = ["CaseArrays", "CaseResult", "NodeResult", "RunStore", "Status"]
