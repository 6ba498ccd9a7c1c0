"""RTOG-0129 risk of death: Ang et al., N Engl J Med 2010, and Fakhry et al., Cancer 2019, its validation.

Two published readings that differ in one cell, the HPV-negative T1 of at most 10 pack-years: the original
names only T2-T3 for the exception from high risk; the validation says "below T4".
"""

from __future__ import annotations

from typing import Literal

from aiene.risk.staging.decision import Decision
from aiene.risk.staging.editions import ajcc7
from aiene.risk.staging.stage import Definition, Edition, Patient

DEFINITIONS: tuple[Definition, ...] = ("fakhry2019", "ang2010")
GROUPS = ("low", "intermediate", "high")
UNCLASSIFIABLE = "unclassifiable"

LOW_N = ("N0", "N1", "N2a")
HIGH_N = ("N2b", "N2c", "N3")
_T1 = ("T0", "Tis", "T1")


def rtog0129(
    hpv: str | None,
    pack_years: Literal["le10", "gt10"] | str | None,
    n7: str | None,
    t: str | None,
    *,
    definition: Definition = "fakhry2019",
) -> Decision:
    """The risk group (table `rtog0129`, rows 1-13).

    Parameters
    ----------
    hpv : `positive`, `negative` or None.
    pack_years : `le10` (10 counts as at most 10), `gt10` or None.
    n7 : N of edition 7, bare N2 and NX included, or None.
    t : T of edition 7 (edition 8's T4 is as good), or None.
    definition : which published reading.
    """
    if hpv is None:
        return _open(1, "missing: hpv")
    if hpv == "positive":
        return _positive(pack_years, n7)
    return _negative(pack_years, t, definition)


def _positive(pack_years: str | None, n7: str | None) -> Decision:
    if n7 in LOW_N:
        return _group(2, "low")
    if pack_years == "le10":
        return _group(3, "low")
    if pack_years == "gt10":
        if n7 in HIGH_N:
            return _group(4, "intermediate")
        return _open(5, f"missing: N of edition 7 {_bare(n7)}", ("low", "intermediate"))
    lacking = "pack_years" if n7 in HIGH_N else f"pack_years and N of edition 7 {_bare(n7)}"
    return _open(6, f"missing: {lacking}", ("low", "intermediate"))


def _negative(pack_years: str | None, t: str | None, definition: Definition) -> Decision:
    literal = definition == "ang2010"
    if t in ("T4", "T4a", "T4b"):
        return _group(7, "high")
    if pack_years == "gt10":
        return _group(8, "high")
    if pack_years == "le10":
        if t in ("T2", "T3"):
            return _group(9, "intermediate")
        if t in _T1:
            return _group(10, "high" if literal else "intermediate")
        return _open(11, "missing: T", ("intermediate", "high"))
    if t in _T1:
        if literal:
            return _group(13, "high")
        return _open(13, "missing: pack_years", ("intermediate", "high"))
    lacking = "pack_years" if t in ("T2", "T3") else "pack_years and T"
    return _open(12, f"missing: {lacking}", ("intermediate", "high"))


def _bare(n7: str | None) -> str:
    return f"({n7} does not tell)" if n7 is not None else ""


def _group(row: int, group: str) -> Decision:
    return Decision(group, f"rtog0129:{row}")


def _open(row: int, reason: str, possible: tuple[str, ...] = GROUPS) -> Decision:
    return Decision(None, f"rtog0129:{row}", reason.strip(), possible)


def _decide(patient: Patient) -> tuple[Decision, ...]:
    inputs = patient.inputs
    t = inputs.t7 or inputs.t8
    n = _word(ajcc7.n_of(patient))
    groups = {d: rtog0129(inputs.hpv, inputs.pack_years_class, n, t, definition=d) for d in DEFINITIONS}
    return groups["fakhry2019"], groups["ang2010"], groups[patient.options.rtog]


def _word(decision: Decision) -> str | None:
    """N for RTOG-0129: where several are possible on one side of its cut, one of them stands for all."""
    if decision.value is not None or not decision.possible:
        return decision.value
    for group in (LOW_N, HIGH_N):
        if set(decision.possible) <= set(group):
            return decision.possible[0]
    return None


EDITION = Edition(
    "rtog0129",
    ("rtog0129_fakhry2019", "rtog0129_ang2010", "rtog0129"),
    _decide,
    place=4,
    no_value=UNCLASSIFIABLE,
)
