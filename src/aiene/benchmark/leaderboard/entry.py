"""Entries of a leaderboard: one model on one data set with its settings, in figures, without patients.

Entries are made from a benchmark's summary, one for each model. What may stand in one is a closed list: a
name that is not known, or a value that cannot be, is no entry.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from aiene.benchmark.config import LABEL_VALUES
from aiene.benchmark.counting import RULE
from aiene.errors import UsageError

_LONGEST_TEXT = 500
_TEXTS = ("model", "version", "created")
_OPTIONAL_TEXTS = ("machine", "site", "note")
_HASH = re.compile(r"[0-9a-f]{64}")
_PROMPTS = ("none", "road", "truth")
_LEFT_OUT = frozenset({"model_sha256", "machine", "site", "note", "intervals"})
"""Fields that an entry need not have."""

_UNIT, _RISING = (0.0, 1.0), (0.0, math.inf)
OF_CASES: dict[str, tuple[float, float]] = {
    f"{metric}_{label}": bounds
    for label in LABEL_VALUES
    for bounds, metrics in (
        (_UNIT, ("dice", "iou", "surface_dice_1mm", "surface_dice_2mm")),
        (_RISING, ("hd95_mm", "assd_mm", "volume_error_ml", "volume_error_relative")),
    )
    for metric in metrics
}
"""Means over cases, and between which values they can lie."""
WHOLE: dict[str, tuple[float, float]] = {
    **{f"aggregated_dice_{label}": _UNIT for label in LABEL_VALUES},
    **dict.fromkeys(("node_precision", "node_f1", "panoptic_quality", "froc"), _UNIT),
    **dict.fromkeys(("node_false_per_case", "total_seconds", "peak_rss_mib"), _RISING),
}
"""Figures that cannot be given where a case has no prediction."""
_SHARES = ("node_sensitivity", "node_dice", "brier_on_truth", "brier_end_to_end")
"""Besides the means over cases, what is a mean of parts: resampling spreads it to both sides, so that its
interval holds it. Areas and curves can be biased in resamples of few patients."""
_ROUNDING = 1e-9
METRICS: dict[str, tuple[float, float]] = {
    **OF_CASES,
    **WHOLE,
    **dict.fromkeys(("node_sensitivity", "node_dice"), _UNIT),
    **{
        f"{name}_{track}": _UNIT
        for track in ("on_truth", "end_to_end")
        for name in ("auc", "average_precision", "brier")
    },
}


@dataclass(frozen=True)
class Entry:
    """What a run adds to a leaderboard for one model.

    Nothing in it is of a patient: figures over all cases, and hashes. `note` is shared as it is.

    Parameters
    ----------
    data_sha256 : hash of the data set; only entries with the same one and the same settings are compared.
    settings : `rule` of what counts, `iou_threshold`, `patients` (hash of how the cases are dealt to them)
        and `prompts` (`none`, `road` or `truth`).
    model, model_sha256 : its name, and the hash of its content; None where there is no file to hash.
    version : of this package.
    machine : in words, without a person's or computer's name.
    created : ISO 8601 date and time, UTC.
    n_cases, n_done : cases that the figures are over, and those of them that have a prediction.
    metrics : figures by name, of `METRICS`; None where one could not be given.
    intervals : 95 % intervals by name, where there are any.
    site : who measured, in words that may be shared; empty where it stays unsaid.
    """

    data_sha256: str
    settings: dict[str, Any]
    model: str
    model_sha256: str | None
    version: str
    machine: str
    created: str
    n_cases: int
    n_done: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    site: str = ""
    note: str = ""

    @property
    def identity(self) -> str:
        """Hash of the whole entry; the same entry is kept once, whichever way it comes.

        It tells an entry that was changed by hand or by accident. It is no signature: who makes a new hash
        for a new entry is not found out.
        """
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()

    @property
    def key(self) -> tuple[str, str]:
        """Data and settings: what two entries must have in common to be compared."""
        return self.data_sha256, _canonical(self.settings)


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """JSON values with the entry's own hash; `entry_from_json` takes them back."""
    good = checked(entry)
    return {**json.loads(_canonical(asdict(good))), "sha256": good.identity}


def entry_from_json(content: object) -> Entry:
    """The entry of JSON values that may come from anywhere.

    Raises
    ------
    UsageError : it is not of this form, holds more than an entry does (names of patients, say), a value that
        cannot be, or is not what its own hash says.
    """
    if not isinstance(content, dict):
        raise UsageError("an entry is not a JSON object.")
    needed = {*Entry.__dataclass_fields__, "sha256"} - _LEFT_OUT
    _check_names(content, needed, "holds unknown fields", "lacks", optional=_LEFT_OUT)
    values = {name: value for name, value in content.items() if name != "sha256"}
    entry = checked(Entry(**{"model_sha256": None, "machine": "", **values}))
    if entry.identity != content["sha256"]:
        raise UsageError("an entry does not match its own hash: it was changed after it was made.")
    return entry


def checked(entry: Entry) -> Entry:
    """The entry, where every field is what it should be; figures as floats, the date in UTC.

    Raises
    ------
    UsageError : a field is of another kind, too long, not known, or a value that cannot be.
    """
    for name in (*_TEXTS, *_OPTIONAL_TEXTS):
        _check_text(name, getattr(entry, name), optional=name in _OPTIONAL_TEXTS)
    _check_hash("data_sha256", entry.data_sha256)
    if entry.model_sha256 is not None:
        _check_hash("model_sha256", entry.model_sha256)
    for name in ("n_cases", "n_done"):
        count = getattr(entry, name)
        if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= 10_000_000:
            raise UsageError(f"{name} of an entry is not a whole number from 1.")
    if entry.n_done > entry.n_cases:
        raise UsageError("an entry has more cases that are done than cases.")
    settings = _settings(entry.settings)
    if not isinstance(entry.metrics, Mapping) or not isinstance(entry.intervals, Mapping):
        raise UsageError("metrics or intervals of an entry are not a JSON object.")
    metrics = {name: _figure(name, value) for name, value in entry.metrics.items()}
    intervals = {name: _interval(name, ends) for name, ends in entry.intervals.items()}
    _check_together(metrics, intervals)
    _check_lost(entry, metrics)
    created = _in_utc(entry.created)
    return replace(entry, settings=settings, metrics=metrics, intervals=intervals, created=created)


def _settings(settings: object) -> dict[str, Any]:
    if not isinstance(settings, Mapping):
        raise UsageError("settings of an entry are not a JSON object.")
    known = {"iou_threshold", "patients", "prompts", "rule"}
    _check_names(settings, known, "has unknown settings", "lacks the settings")
    iou, rule = settings["iou_threshold"], settings["rule"]
    if isinstance(iou, bool) or not isinstance(iou, int | float) or not 0 < iou <= 1:
        raise UsageError("the setting iou_threshold of an entry is not over 0 and at most 1.")
    if isinstance(rule, bool) or not isinstance(rule, int) or rule < 1:
        raise UsageError("the setting rule of an entry is not a whole number from 1.")
    if rule > RULE:
        raise UsageError(f"an entry counts by rule {rule}, which this version does not know (it has {RULE}).")
    if settings["prompts"] not in _PROMPTS:
        raise UsageError(f"the setting prompts of an entry is not one of {', '.join(_PROMPTS)}.")
    _check_hash("the setting patients", settings["patients"])
    return {**settings, "iou_threshold": float(iou)}


def _check_together(
    metrics: Mapping[str, float | None], intervals: Mapping[str, tuple[float, float]]
) -> None:
    """Figures and intervals that may each be, but not beside each other.

    A case's IoU is Dice / (2 - Dice), a convex function that is never above Dice; so is its mean, which is at
    least that of the mean Dice (Jensen).
    """
    for name, (low, high) in intervals.items():
        value = metrics.get(name)
        if value is None:
            raise UsageError(f"an entry has an interval of {name} without a figure.")
        holds = low - _ROUNDING <= value <= high + _ROUNDING
        if (name in OF_CASES or name in _SHARES) and not holds:
            raise UsageError(f"{name} of an entry is {value:g}, outside its interval {low:g} to {high:g}.")
    for label in LABEL_VALUES:
        dice, iou = metrics.get(f"dice_{label}"), metrics.get(f"iou_{label}")
        if dice is None or iou is None:
            continue
        if not dice / (2 - dice) - _ROUNDING <= iou <= dice + _ROUNDING:
            said = f"iou_{label} of an entry is {iou:g} and dice_{label} {dice:g}"
            raise UsageError(f"{said}, which cannot be together.")


def _check_lost(entry: Entry, metrics: Mapping[str, float | None]) -> None:
    """Figures that cannot be where cases have no prediction.

    Each of these cases counts as 0 for what goes up to 1, and as the image's diagonal for distances.
    """
    if entry.n_done == entry.n_cases:
        return
    most = entry.n_done / entry.n_cases
    for name, value in metrics.items():
        cannot = value is not None and name in WHOLE
        above = value is not None and OF_CASES.get(name) == _UNIT and value > most + _ROUNDING
        near = value == 0 and name.startswith(("hd95_mm", "assd_mm"))
        if cannot or above or near:
            lost = entry.n_cases - entry.n_done
            raise UsageError(f"{name} of an entry cannot be, as {lost} of its cases have no prediction.")


def _check_names(
    given: Mapping[Any, Any],
    needed: set[str],
    more: str,
    less: str,
    *,
    optional: frozenset[str] = frozenset(),
) -> None:
    unknown = sorted(str(name) for name in given if name not in needed | optional)
    if unknown:
        raise UsageError(f"an entry {more} ({_shown(', '.join(unknown))}).")
    lacking = sorted(needed - given.keys())
    if lacking:
        raise UsageError(f"an entry {less} {', '.join(lacking)}.")


def _check_hash(name: str, value: object) -> None:
    if not isinstance(value, str) or not _HASH.fullmatch(value):
        raise UsageError(f"{name} of an entry is not a SHA-256 of 64 letters and digits.")


def _check_text(name: str, value: object, *, optional: bool) -> None:
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not (value.strip() or optional):
        raise UsageError(f"{name} of an entry is not a text of 1 to {_LONGEST_TEXT} characters.")
    if any(not letter.isprintable() for letter in value):
        raise UsageError(f"{name} of an entry holds characters that cannot be printed.")


def _in_utc(created: str) -> str:
    """The moment in one spelling, so that dates can be sorted; without a zone it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(created)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"created of an entry is not a date ({_shown(created)}).") from error


def _bounds(name: object) -> tuple[float, float]:
    if not isinstance(name, str) or name not in METRICS:
        raise UsageError(f"an entry has a metric that is not known ({_shown(str(name))}).")
    return METRICS[name]


def _figure(name: str, value: object) -> float | None:
    low, high = _bounds(name)
    if value is None:
        return None
    number = _finite(name, value)
    if not low <= number <= high:
        raise UsageError(f"the metric {name} of an entry is {number:g}, which cannot be.")
    return number


def _interval(name: str, ends: object) -> tuple[float, float]:
    lowest, highest = _bounds(name)
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise UsageError(f"the interval of {name} of an entry is not a pair of numbers.")
    low, high = (_finite(name, end) for end in ends)
    if not lowest <= low <= high <= highest:
        raise UsageError(f"the interval of {name} of an entry is {low:g} to {high:g}, which cannot be.")
    return low, high


def _finite(name: str, value: object) -> float:
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        raise UsageError(f"the metric {name} of an entry is not a finite number.")
    return number


def _canonical(content: Mapping[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _shown(text: str) -> str:
    """A foreign text as it may stand in a sentence: short, printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 60 else printable[:57] + "..."


# Entries from a summary


def entries_of(summary: dict[str, Any], site: str = "") -> list[Entry]:
    """One entry for each model that gave an answer to some case; none where no case could be used.

    Parameters
    ----------
    summary : content of a `benchmark_summary_<time>.json`.
    site : who measured, in words that may be shared.
    """
    machine = summary["machine"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    entries = []
    for model in summary["models"]:
        if model["status"] != "ok" or not model["cases"]["ok"]:
            continue
        done, lost = model["cases"]["ok"], model["cases"]["failed"]
        found = {name: one for name, one in figures_of(model).items() if not lost or name not in WHOLE}
        entries.append(
            Entry(
                data_sha256=summary["data"]["sha256"],
                settings={**summary["data"]["settings"], "prompts": model["prompts"]},
                model=model["name"],
                model_sha256=model["sha256"],
                version=summary["aiene"],
                machine=where,
                created=summary["created"],
                n_cases=done + lost,
                n_done=done,
                metrics={name: one.get("value") for name, one in found.items()},
                intervals={
                    name: (one["low"], one["high"])
                    for name, one in found.items()
                    if one.get("low") is not None
                },
                site=site,
                note="; ".join(model["said"]),
            )
        )
    return entries


def figures_of(model: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The figures of a model by name, each an `Estimate` as JSON; the mean where there are several cases."""
    found: dict[str, dict[str, Any]] = {}
    for label, figures in (model["segmentation"] or {}).items():
        for name, summary in figures.items():
            found[f"{name}_{label}"] = summary["mean"]
    for label, estimate in (model["aggregated_dice"] or {}).items():
        found[f"aggregated_dice_{label}"] = estimate
    nodes = model["detection"] or {}
    for name in ("sensitivity", "precision", "f1", "false_per_case"):
        if name in nodes:
            found[f"node_{name}"] = nodes[name]
    if nodes:
        found |= {name: nodes[name] for name in ("node_dice", "panoptic_quality")}
        found["froc"] = nodes["froc"]["interval"]
    for track, figures in (model["classification"] or {}).items():
        for name, key in (("auc", "auc_clustered"), ("average_precision",) * 2, ("brier",) * 2):
            if figures and key in figures:
                found[f"{name}_{track}"] = figures[key]
    resources = model["resources"]
    found["total_seconds"] = resources["seconds"]["total"]["median"]
    found["peak_rss_mib"] = {"value": resources["peak_rss_mib"]["max"]}
    return found
