"""What a user may decide about an analysis, and what it consists of.

It has chapters, what could not be done, warnings, and what it was made with.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from importlib import resources
from typing import TYPE_CHECKING, Any, Literal

from aiene.errors import UsageError
from aiene.report.document import Column, Figure, Item, Row, Section, Table, Text
from aiene.report.formatting import plain_rows
from aiene.risk.table.endpoints import CONTROL
from aiene.stats.records import Coefficient, Difference, Interval

if TYPE_CHECKING:
    from aiene.stats.imputation import PooledCoefficient

Endpoint = Literal["os", "dc", "lrc", "dfs", "dmfs"]
Derive = Literal["no", "split", "nested"]

CensorAt = Literal["last_followup", "last_imaging"]

ENDPOINTS: tuple[Endpoint, ...] = ("os", "dc", "lrc", "dfs", "dmfs")
COVARIATES = ("hpv", "pack_years", "t", "n", "age", "sex")
"""The factors that the marker is adjusted for unless the user says otherwise."""
KNOWN_COVARIATES = (*COVARIATES, "ecog", "smoking_status", "treatment", "center")


THRESHOLDS = tuple(round(0.01 * i, 2) for i in range(1, 51))
"""Threshold risks of a decision curve."""


@cache
def _report_items() -> dict[str, Any]:
    text = (resources.files("aiene.risk.analyse") / "report_items.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


def text_of(kind: str, /, **words: Any) -> str:
    """A paragraph of the report, see [text] of `report_items.toml`.

    Parameters
    ----------
    words : what stands in braces there.
    """
    return str(_report_items()["text"][kind]).format(**words)


def table_of(kind: str, rows: Sequence[Row], /, **words: Any) -> Table:
    """A table of the report; its name, title, columns and note stand in `report_items.toml`.

    Parameters
    ----------
    kind : its entry there.
    rows : values by key of a column; made plain here.
    words : what stands in braces there; a sequence for a word that columns are repeated for.
    """
    entry, words = _report_items()["table"][kind], _report_items()["words"] | words
    texts = (entry.get("name", kind), entry["title"], entry.get("note", ""))
    name, title, note = (text.format(**words) for text in texts)
    return Table(name, title, tuple(_columns(entry["columns"], words)), plain_rows(rows), note)


def _columns(entries: Sequence[Any], words: Mapping[str, Any]) -> Iterator[Column]:
    for entry in entries:
        if isinstance(entry, str):
            yield from _columns(_report_items()["shared"][entry], words)
        elif isinstance(entry, dict):
            for value in words[entry["each"]]:
                yield from _columns(entry["columns"], {**words, entry["each"]: value})
        else:
            yield Column(*(text.format(**words) for text in entry))


def figure_of(
    kind: str,
    draw: Callable[[Any], Any],
    content: Any,
    data: Mapping[str, Sequence[Any]],
    /,
    *,
    wide: bool = False,
    **words: Any,
) -> Figure:
    """A figure of the report; its name, title and legend stand in `report_items.toml`.

    Parameters
    ----------
    draw, content : the chart, a function that can be pickled, and what it draws.
    words : what stands in braces there.
    """
    entry, words = _report_items()["figure"][kind], _report_items()["words"] | words
    name, title, legend = (entry.get(k, kind).format(**words) for k in ("name", "title", "legend"))
    return Figure(name, title, legend, partial(draw, content), data, wide)


def fields_of(record: object, *names: str) -> dict[str, Any]:
    """Some fields of a record as cells of a table."""
    return {name: getattr(record, name) for name in names}


def interval_cells(name: str, value: Any) -> dict[str, Any]:
    """A value, its `_lower` and its `_upper` end as cells of a table; None where it is not known."""
    ends = (None, None, None) if value is None else (value.value, value.lower, value.upper)
    return dict(zip((name, f"{name}_lower", f"{name}_upper"), ends, strict=True))


def effect(row: Coefficient | PooledCoefficient, of: str = "") -> dict[str, float]:
    """Hazard ratio with its interval and p value as cells of a table, whose keys begin with `of`."""
    return {f"{of}hr": row.hr, f"{of}lower": row.lower, f"{of}upper": row.upper, f"{of}p": row.p}


@dataclass(frozen=True)
class AnalysisSettings:
    """Settings of `aiene risk analyse`; every one is written into `analysis.json`.

    Parameters
    ----------
    bootstraps : resamples of patients for intervals and for optimism; 0 leaves both out.
    seed : of every random step.
    confidence : level of every interval.
    horizons : years of survival tables and of the time-dependent AUC.
    calibration_years : years of calibration.
    decision_years : year of the decision curve and of the reclassification table.
    covariates : names out of `KNOWN_COVARIATES` for the multivariable models.
    also : numeric columns of the table, beside number and volume of nodes, that the count is set beside.
    dm_censor_at : a death after the follow-up for distant metastasis or locoregional failure ended (imaging
        stopped) competes when it happens (`last_followup`), or the patient is censored there
        (`last_imaging`); None leaves it to the table's column of that name, else the former.
    marker_cap : the capped form of the count counts no node above this.
    sites : primary sites that are analysed; empty for all.
    hpv_strata : also analyse HPV-positive and HPV-negative patients on their own.
    impute : multiple imputation of covariates beside the complete cases.
    imputations : number of imputed tables.
    derive : cut-offs from the data: on a training part and reported on the other one (`split`), or nested
        cross-validation (`nested`).
    derive_endpoint : endpoint whose information chooses the cut-offs; None takes dc where it is analysed,
        else the first.
    train_fraction : share of the training part; stratified by event.
    folds, repeats : of the nested cross-validation.
    permutations : shuffles of the marker within base groups in the permutation control.
    ene_thresholds : thresholds of the sensitivity analysis; needs the nodes of a run.
    jobs : worker processes; None takes one per available core. No result depends on it.
    date : printed on the report, as given; no clock is read.
    title : heading of the report.

    Raises
    ------
    UsageError : a setting is out of its range.
    """

    bootstraps: int = 1000
    seed: int = 20260101
    confidence: float = 0.95
    horizons: tuple[float, ...] = (2.0, 3.0, 5.0)
    calibration_years: tuple[float, ...] = (2.0, 5.0)
    decision_years: float = 3.0
    covariates: tuple[str, ...] = COVARIATES
    also: tuple[str, ...] = ()
    dm_censor_at: CensorAt | None = None
    marker_cap: int = 5
    sites: tuple[str, ...] = ("oropharynx",)
    hpv_strata: bool = True
    impute: bool = False
    imputations: int = 20
    derive: Derive = "no"
    derive_endpoint: Endpoint | None = None
    train_fraction: float = 0.5
    folds: int = 5
    repeats: int = 4
    permutations: int = 200
    ene_thresholds: tuple[float, ...] = (0.2, 0.3, 0.4, 0.5)
    jobs: int | None = None
    date: str = ""
    title: str = "AI-ENE and risk"

    def __post_init__(self) -> None:
        for holds, sentence in (
            (
                self.bootstraps >= 2 or not self.bootstraps,
                "the number of bootstraps must be 0, or 2 or more.",
            ),
            (0.5 <= self.confidence < 1, "the confidence level must lie between 0.5 and 1."),
            (all(y > 0 for y in self.every_year), "horizons are years and must be above 0."),
            (self.marker_cap >= 1, "the cap of the count must be 1 or more."),
            (0.1 <= self.train_fraction <= 0.9, "the training part must be between 0.1 and 0.9."),
            (self.folds >= 2, "nested cross-validation needs 2 folds or more."),
            (self.repeats >= 1, "nested cross-validation needs 1 repeat or more."),
            (
                self.permutations == 0 or self.permutations >= 2,
                "the number of permutations must be 0, or 2 or more.",
            ),
            (self.imputations >= 2, "multiple imputation needs 2 imputations or more."),
            (self.jobs is None or self.jobs >= 1, "the number of jobs must be 1 or more."),
            (all(0 < t < 1 for t in self.ene_thresholds), "ENE thresholds must lie between 0 and 1."),
        ):
            if not holds:
                raise UsageError(sentence)
        unknown = [name for name in self.covariates if name not in KNOWN_COVARIATES]
        if unknown:
            raise UsageError(f"unknown covariate {unknown[0]}; choose from {', '.join(KNOWN_COVARIATES)}.")

    @property
    def every_year(self) -> tuple[float, ...]:
        """All horizons that are asked for."""
        return (*self.horizons, *self.calibration_years, self.decision_years)


def chosen_endpoint(settings: AnalysisSettings, endpoints: tuple[Endpoint, ...]) -> Endpoint:
    """The endpoint whose information chooses the cut-offs.

    Raises
    ------
    UsageError : the settings name one that is not analysed.
    """
    wanted = settings.derive_endpoint
    if wanted is None:
        return "dc" if "dc" in endpoints or not endpoints else endpoints[0]
    if wanted not in endpoints:
        among = ", ".join(endpoints)
        raise UsageError(f"cut-offs are to be derived for {wanted}, not among the endpoints ({among}).")
    return wanted


def parse_endpoints(names: tuple[str, ...] | list[str]) -> tuple[Endpoint, ...]:
    """The endpoints in the order asked for, each once; `dm` and `lrf` are taken as `dc` and `lrc`.

    Raises
    ------
    UsageError : none is given, or one is not known.
    """
    found: list[Endpoint] = []
    for name in (CONTROL.get(n.strip().lower(), n.strip().lower()) for n in names if n.strip()):
        match = [e for e in ENDPOINTS if e == name]
        if not match:
            raise UsageError(f"unknown endpoint {name}; choose from {', '.join(ENDPOINTS)}.")
        if match[0] not in found:
            found.append(match[0])
    if not found:
        raise UsageError(f"no endpoint; choose from {', '.join(ENDPOINTS)}.")
    return tuple(found)


@dataclass(frozen=True)
class Skipped:
    """Something that could not be done, with its reason.

    Parameters
    ----------
    what : in words.
    reason : one sentence.
    asked : the user asked for it by name, so the command ends with 1.
    """

    what: str
    reason: str
    asked: bool = False


@dataclass(frozen=True)
class Part:
    """What one step of the analysis gives."""

    items: tuple[Item, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def failed(cls, what: str, reason: object, *, asked: bool = False) -> Part:
        """A warning in the report in place of a step, and the step among what was skipped."""
        return cls((Text(f"{what}: {reason}", kind="warning"),), (Skipped(what, str(reason), asked),))

    def __add__(self, other: Part) -> Part:
        return Part(self.items + other.items, self.skipped + other.skipped, self.warnings + other.warnings)


@dataclass(frozen=True)
class Analysis:
    """A whole analysis, ready to be written.

    Parameters
    ----------
    head : title, date, notice, settings, scheme, software: what it was made with.
    sections : chapters in the order of the report.
    skipped : what was asked for and could not be done.
    warnings : what a reader must know.
    simulated : the AI-ENE count was simulated, so every output says so.
    methods : the methods paragraph.
    checklists : REMARK and TRIPOD+AI items by name.
    """

    head: Mapping[str, Any]
    sections: tuple[Section, ...]
    skipped: tuple[Skipped, ...] = ()
    warnings: tuple[str, ...] = ()
    simulated: bool = False
    methods: str = ""
    checklists: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """0 where all that was asked for by name is there, else 1."""
        return 1 if any(s.asked for s in self.skipped) else 0

    @property
    def tables(self) -> dict[str, Table]:
        """Every table by name."""
        return {i.name: i for s in self.sections for i in s.items if isinstance(i, Table)}

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by name."""
        return {i.name: i for s in self.sections for i in s.items if isinstance(i, Figure)}


# How often statistics resample, and which of their intervals are kept


def resampling(settings: AnalysisSettings, *, most: int | None = None) -> dict[str, Any]:
    """How the statistics resample, at `most` so many times.

    Twice where it is not wanted: the least that can be asked for; those intervals are not kept.
    """
    times = settings.bootstraps or 2
    times = times if most is None else min(times, most)
    return {"n_boot": times, "seed": settings.seed, "confidence": settings.confidence}


def ends(value: Interval | Difference, settings: AnalysisSettings) -> dict[str, Any]:
    """Ends of an interval, and p of a difference; nothing without bootstraps."""
    if not settings.bootstraps:
        return {}
    return fields_of(value, "lower", "upper", *(("p",) if isinstance(value, Difference) else ()))
