"""One line of a leaderboard: a model on a data set, in figures, without patients."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from aiene.errors import UsageError

_NAME_OF_METRIC = re.compile(r"[A-Za-z0-9_.@%<>=+ -]{1,80}")
_LONGEST_TEXT = 500
_MOST_METRICS = 500
_TEXTS = ("data_sha256", "model", "version", "created")
_OPTIONAL_TEXTS = ("model_sha256", "machine", "site", "note")


@dataclass(frozen=True)
class Entry:
    """What a run adds to a leaderboard for one model.

    Nothing in it is of a patient: figures over all cases, and hashes. `note` is shared as it is.

    Parameters
    ----------
    data_sha256 : hash of the data set; only entries with the same one are compared.
    model, model_sha256 : its name and hash; None where there is no file to hash.
    version : of this package.
    machine : in words, without a person's or computer's name.
    created : ISO 8601 date and time, UTC.
    n_cases : cases that the figures are over.
    metrics : figures by name; None where one could not be given.
    site : who measured, in words that may be shared; empty where it stays unsaid.
    """

    data_sha256: str
    model: str
    model_sha256: str | None
    version: str
    machine: str
    created: str
    n_cases: int
    metrics: dict[str, float | None] = field(default_factory=dict)
    site: str = ""
    note: str = ""

    @property
    def identity(self) -> str:
        """Hash of the whole entry; the same entry is kept once, whichever way it comes."""
        return hashlib.sha256(_canonical(asdict(self)).encode()).hexdigest()


def entry_to_json(entry: Entry) -> dict[str, Any]:
    """JSON values; `entry_from_json` takes them back."""
    return asdict(checked(entry))


def entry_from_json(content: object) -> Entry:
    """The entry of JSON values that may come from anywhere.

    Raises
    ------
    UsageError : it is not of this form, or holds more than an entry does (names of patients, say).
    """
    if not isinstance(content, dict):
        raise UsageError("an entry is no JSON object.")
    known = {*Entry.__dataclass_fields__}
    unknown = sorted(str(key) for key in content if key not in known)
    if unknown:
        raise UsageError(f"an entry holds unknown fields ({_shown(', '.join(unknown))}).")
    lacking = sorted(name for name in (*_TEXTS, "n_cases", "metrics") if name not in content)
    if lacking:
        raise UsageError(f"an entry lacks {', '.join(lacking)}.")
    filled = {"model_sha256": None, "machine": "", **content}
    return checked(Entry(**filled))


def checked(entry: Entry) -> Entry:
    """The entry, where every field is what it should be; figures as floats, the date in UTC.

    Raises
    ------
    UsageError : a field is of another kind, too long, or no finite number.
    """
    for name in (*_TEXTS, *_OPTIONAL_TEXTS):
        _check_text(name, getattr(entry, name), optional=name in _OPTIONAL_TEXTS)
    if isinstance(entry.n_cases, bool) or not isinstance(entry.n_cases, int) or entry.n_cases < 0:
        raise UsageError("n_cases of an entry is no whole number from 0.")
    if not isinstance(entry.metrics, dict) or len(entry.metrics) > _MOST_METRICS:
        raise UsageError(f"metrics of an entry is no JSON object of at most {_MOST_METRICS} figures.")
    metrics = {_metric_name(name): _figure(name, value) for name, value in entry.metrics.items()}
    return Entry(**{**asdict(entry), "metrics": metrics, "created": _in_utc(entry.created)})


def _check_text(name: str, value: object, *, optional: bool) -> None:
    if value is None and name == "model_sha256":
        return
    if not isinstance(value, str) or len(value) > _LONGEST_TEXT or not (value.strip() or optional):
        raise UsageError(f"{name} of an entry is no text of 1 to {_LONGEST_TEXT} characters.")
    if any(not letter.isprintable() for letter in value):
        raise UsageError(f"{name} of an entry holds characters that cannot be printed.")


def _in_utc(created: str) -> str:
    """The moment in one spelling, so that dates can be sorted; without a zone it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(created)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return aware.astimezone(UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError) as error:
        raise UsageError(f"created of an entry is no date ({_shown(created)}).") from error


def _metric_name(name: object) -> str:
    if not isinstance(name, str) or not _NAME_OF_METRIC.fullmatch(name):
        raise UsageError(f"a metric of an entry has a name that is none ({_shown(str(name))}).")
    return name


def _figure(name: object, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value) if isinstance(value, int | float) else math.nan
    except OverflowError:
        number = math.inf
    if isinstance(value, bool) or not math.isfinite(number):
        raise UsageError(f"the metric {_shown(str(name))} of an entry is no finite number.")
    return number


def _canonical(content: dict[str, Any]) -> str:
    return json.dumps(content, sort_keys=True, ensure_ascii=True, separators=(",", ":"))


def _shown(text: str) -> str:
    """A foreign text as it may stand in a sentence: short, printable."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 60 else printable[:57] + "..."
