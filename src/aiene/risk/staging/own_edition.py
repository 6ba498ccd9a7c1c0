"""An edition of staging from a user's own file: a proposal, a trial's rules, or a country's own.

The file is TOML: what it is for, a table of N and a table of stages. Each row says what it gives and when;
the first row that holds wins, and an input that is missing leaves a row open (`decision`), so that nothing is
guessed. A condition that a row does not name does not count.

    name = "icon_s"                  # gives the columns icon_s_n and icon_s_stage
    source = "O'Sullivan et al., Lancet Oncol 2016;17:440"
    hpv = "positive"                 # positive, negative or any
    extension = "none"               # whose: none, clinical, imaging or pathological

    [[n]]
    gives = "N2"
    present = true                   # there is a node
    side = ["contralateral", "bilateral"]
    over_6_cm = false                # also: several, over_3_cm, five_or_more, extension

    [[stage]]
    gives = "II"
    t = ["T1", "T2"]
    n = ["N2"]
    m = ["M0"]
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiene.errors import InputError
from aiene.hashing import file_sha256
from aiene.risk.staging.decision import (
    Decision,
    NodeFacts,
    Row,
    Tri,
    among,
    decide,
    every,
    lacking,
    needed,
    negated,
    not_applicable,
    told,
    unknown,
)
from aiene.risk.staging.stage import Edition, Patient, editions, n_of_facts, over_n

_REMEDY = "write it as docs/risk.md shows"
_Word = Field(min_length=1, max_length=40)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _NRow(_Strict):
    gives: str = _Word
    assessable: bool | None = None
    present: bool | None = None
    several: bool | None = None
    five_or_more: bool | None = None
    side: list[Literal["ipsilateral", "contralateral", "bilateral"]] | None = None
    over_3_cm: bool | None = None
    over_6_cm: bool | None = None
    extension: bool | None = None

    def holds(self, nodes: NodeFacts) -> Tri:
        """Whether the row holds for some nodes."""
        if not nodes.assessable:
            return self.assessable is False
        found = {
            "assessable": True,
            "present": nodes.present,
            "several": nodes.several,
            "five_or_more": nodes.over4,
            "over_3_cm": nodes.over3,
            "over_6_cm": nodes.over6,
            "extension": nodes.ene,
        }
        wanted = [(found[name], getattr(self, name)) for name in found if getattr(self, name) is not None]
        sides = [nodes.lies(*self.side)] if self.side is not None else []
        return every(*(fact if value else negated(fact) for fact, value in wanted), *sides)


class _StageRow(_Strict):
    gives: str = _Word
    t: list[str] | None = None
    n: list[str] | None = None
    m: list[Literal["M0", "M1"]] | None = None

    def holds(self, t: str | None, n: str | None, m: str | None) -> Tri:
        """Whether the row holds for some categories."""
        pairs = ((t, self.t), (n, self.n), (m, self.m))
        return every(*(among(word, *words) for word, words in pairs if words is not None))


class _File(_Strict):
    name: str = Field(pattern=r"^[a-z][a-z0-9_]{0,30}$")
    source: str = Field(min_length=3)
    hpv: Literal["positive", "negative", "any"]
    extension: Literal["none", "clinical", "imaging", "pathological"]
    n: list[_NRow] = Field(min_length=1)
    stage: list[_StageRow] = Field(min_length=1)


def read_edition(path: Path) -> Edition:
    """The edition of a file.

    Raises
    ------
    InputError : no such file, no TOML, a word that the form does not know, a stage row over an N that no row
        gives, or a name whose columns there are already.
    """
    try:
        told_by = _File.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(path, f"it cannot be read ({error.strerror})", "check that it exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(path, f"it is not TOML ({error})", _REMEDY) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part + 1 if isinstance(part, int) else part) for part in first["loc"])
        raise InputError(path, f"{where}: {first['msg'][0].lower()}{first['msg'][1:]}", _REMEDY) from error
    problem = _problem(told_by)
    if problem:
        raise InputError(path, problem, _REMEDY)
    columns = (f"{told_by.name}_n", f"{told_by.name}_stage")
    return Edition(f"{told_by.name} ({file_sha256(path)[:12]})", columns, _rule(told_by))


def read_editions(paths: Sequence[Path]) -> tuple[Edition, ...]:
    """The editions of several files.

    Raises
    ------
    InputError : as `read_edition`, and where two give the same columns.
    """
    found: list[Edition] = []
    for path in paths:
        edition = read_edition(path)
        if any(set(edition.columns) & set(one.columns) for one in found):
            raise InputError(path, "another file already has this name", "choose another name")
        found.append(edition)
    return tuple(found)


def _problem(told_by: _File) -> str:
    given = {row.gives for row in told_by.n}
    strange = sorted({word for row in told_by.stage for word in row.n or ()} - given)
    taken = {name for edition in editions() for name in edition.columns}
    if strange:
        return f"a row of stage names the N {', '.join(strange)}, which no row of n gives"
    if {f"{told_by.name}_n", f"{told_by.name}_stage"} & taken:
        return f"the columns of {told_by.name} exist already; choose another name"
    if told_by.extension == "none" and any(row.extension is not None for row in told_by.n):
        return "a row of n uses extension, but extension is 'none'"
    return ""


def _rule(told_by: _File) -> Callable[[Patient], Sequence[Decision]]:
    def rows(nodes: NodeFacts) -> list[Row]:
        return [Row(number, row.holds(nodes), row.gives) for number, row in enumerate(told_by.n, 1)]

    def n_of(nodes: NodeFacts) -> Decision:
        ene = "" if told_by.extension == "none" else _COLUMN[told_by.extension]
        return decide(f"{told_by.name}-N", rows(nodes), missing=needed(nodes, rows, ene=ene))

    def stage_of(t: str | None, n: str | None, m: str | None) -> Decision:
        t, n, m = told(t), told(n), told(m)
        table = [Row(number, row.holds(t, n, m), row.gives) for number, row in enumerate(told_by.stage, 1)]
        otherwise = f"{told_by.name} has no group for {t} {n} {m}"
        return decide(f"{told_by.name}-stage", table, missing=lacking(t, n, m), otherwise=otherwise)

    def decisions(patient: Patient) -> tuple[Decision, Decision]:
        inputs = patient.inputs
        if told_by.hpv != "any" and inputs.hpv != told_by.hpv:
            outside = not_applicable(f"{told_by.name} is for HPV-{told_by.hpv} disease")
            both = outside if inputs.hpv is not None else unknown("missing: hpv")
            return both, both
        n = n_of_facts(inputs, patient.chapter.value, n_of, ene=_extension(patient, told_by.extension))
        return n, over_n(stage_of, inputs.t8 or inputs.t7, n, patient.m)

    return decisions


_COLUMN = {"clinical": "clinical_ene", "imaging": "iene_grade", "pathological": "pathological_ene"}


def _extension(patient: Patient, whose: str) -> Tri:
    inputs = patient.inputs
    if whose == "imaging":
        return None if inputs.iene_grade is None else inputs.iene_grade >= 1
    return {"clinical": inputs.clinical_ene, "pathological": inputs.pathological_ene, "none": None}[whose]
