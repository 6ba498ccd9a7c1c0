"""Terms of the public collections: T, N and M of edition 7, primary sites, and times to events."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pandas as pd

from aiene.risk.importers.source import PER_YEAR, ImportOptions, Origin, Source, codings_of, stage_letter
from aiene.risk.table.columns import BY_NAME
from aiene.risk.table.values import listed, rows_of, understood

_WORDS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("nasopharynx", ("nasopharyn",)),
    ("hypopharynx", ("hypopharyn", "pyriform", "piriform", "post-cricoid", "postcricoid")),
    ("larynx", ("laryn", "glott")),
    ("oral_cavity", ("oral cavity", "oral tongue", "floor of mouth", "buccal", "retromolar", "gingiva",
                    "hard palate")),
    ("oropharynx", ("oropharyn", "base of tongue", "bot", "tonsil", "soft palate", "vallecula",
                    "glossopharyngeal", "pharyngeal wall")),
    ("unknown_primary", ("unknown", "cup")),
)  # fmt: skip


EVENTS: dict[str, str | None] = {"0": "0", "1": "1"}
SEX: dict[str, str | None] = {"Male": "male", "Female": "female", "M": "male", "F": "female"}


def of_edition(source: Source, edition: Literal["7", "8"], t: str, n: str, m: str) -> dict[str, pd.Series]:
    """The columns of T, N and M with the editions of T and N.

    T1a, T2b and the like of other sites lose their letter; N3a and N3b of edition 7 (nasopharynx) become N3;
    a suffix of two primaries is cut off. Each is told.

    Parameters
    ----------
    t, n, m : headers.

    Raises
    ------
    InputError : a value that is no T, N or M, unless lenient.
    """
    of_t, of_n = (staged(source, f"{one.lower()}{edition}", h, one) for one, h in (("T", t), ("N", n)))
    known = source.constant(edition)
    return {
        f"t{edition}": of_t,
        f"n{edition}": of_n,
        "m": staged(source, "m", m, "M"),
        "edition_t": known.where(of_t.notna()),
        "edition_n": known.where(of_n.notna()),
    }


def staged(source: Source, column: str, header: str, letter: str) -> pd.Series:
    """One of T, N, M; what a word loses on the way is told."""
    texts, words = source.text(header), BY_NAME[column].words
    kept_letters = {"T": "abcd", "N": "abcd", "M": ""}[letter]
    full, bad = understood(texts, stage_letter(letter, lower=kept_letters))
    values = full.map(lambda word: _known(word, words))
    lost = (values.notna() & ((full != values) | texts.str.contains(r"[(r]", na=False))).to_numpy(dtype=bool)
    lost &= texts.notna().to_numpy(dtype=bool)
    unknown = bad | (texts.notna() & values.isna()).to_numpy(dtype=bool)
    if unknown.any():
        source.bad_values(column, (header,), texts, unknown, f"allowed are {', '.join(words)}")
    if lost.any():
        seen = listed(sorted(pd.unique(texts[lost])), shown=8)
        source.findings.note(f"{column}: suffixes of {seen} left off ({int(lost.sum())} patients)")
    out = pd.Series(pd.array(values.to_numpy(), dtype="string"))
    source.record(column, (header,), "category", out, codings_of(texts, out))
    return out


def _known(word: str | None, words: tuple[str, ...]) -> str | None:
    """The word, or without its sub-letter, if it is one of those that are allowed."""
    if word is None or word in words:
        return word
    return word[:2] if word[:2] in words else None


def by_edition(
    source: Source, edition: Literal["7", "8"] | None, t: str, n: str, m: str
) -> dict[str, pd.Series]:
    """T, N and M of a table that does not say its edition: taken only where the user says it.

    Raises
    ------
    InputError : a value that is no T, N or M, unless lenient.
    """
    if edition is None:
        source.findings.warn(
            "the table does not state the edition of T and N; left out; use --edition to include them"
        )
        return {"m": staged(source, "m", m, "M")}
    return of_edition(source, edition, t, n, m)


# Primary sites


def site_of(text: str) -> str:
    """The canonical site of a site or subsite in words; `other` where none of the words is known."""
    folded = text.casefold()
    for site, words in _WORDS:
        if any(word in folded if len(word) > 3 else word == folded for word in words):
            return site
    return "other"


def site_column(source: Source, *headers: str) -> pd.Series:
    """The column `site` from words; every word and what it was taken for is in the preview."""
    texts = source.text(*headers)
    codes = {str(word): site_of(str(word)) for word in pd.unique(texts.dropna())}
    return source.coded("site", *headers, codes=codes)


# Times: an event's own where it happened, else the last follow-up


def origin_of(source: Source, options: ImportOptions, own: Origin, *, stated: bool = True) -> Origin:
    """When the clock starts: the user's word, else the collection's own; told where the table does not say.

    Parameters
    ----------
    own : of the collection.
    stated : whether its dictionary says so.
    """
    if options.origin is None and not stated:
        source.findings.warn(
            f"the table does not state when follow-up starts; taken as {own}; use --origin to change it"
        )
    return options.origin or own


def only_origin(source: Source, options: ImportOptions, own: Origin, why: str) -> None:
    """Refuse another origin than the collection's own.

    Raises
    ------
    InputError : another was asked for.
    """
    if options.origin not in (None, own):
        raise source.findings.refuse(
            f"its times start at {own}, and {why}", f"leave out --origin {options.origin}"
        )


def treatment_start(
    source: Source, options: ImportOptions, header: str, why: str
) -> tuple[Origin, pd.Series | None]:
    """When the clock starts, and the years from diagnosis to the start of treatment where it starts there.

    Parameters
    ----------
    header : of the days from diagnosis to the start of treatment.
    why : the end of treatment is no choice.

    Raises
    ------
    InputError : the end of treatment was asked for, or the header is not there.
    """
    origin = options.origin or "diagnosis"
    if origin == "rt_end":
        only_origin(source, options, "diagnosis", why)
    if origin != "rt_start":
        return origin, None
    source.need(header)
    return origin, source.numbers("start of treatment", header, per=PER_YEAR["days"], unit="days")


def failure_time(
    source: Source, name: str, event: pd.Series, own: pd.Series, last: pd.Series
) -> tuple[pd.Series, pd.Series]:
    """Time and event of a failure.

    Parameters
    ----------
    name : `dm` or `lrf`.
    event : "1", "0" or missing.
    own : years to the failure.
    last : years to death or last follow-up.

    Returns
    -------
    Time and event. A failure before the origin counts at time 0, told.
    """
    happened = (event == "1").fillna(False).to_numpy(dtype=bool)
    time = np.where(happened, own.to_numpy(dtype=float), last.to_numpy(dtype=float))
    before = happened & (time < 0)
    if before.any():
        source.findings.warn(
            f"{name}: the event is before the origin in {rows_of(before)}; counted at time 0"
        )
    return pd.Series(np.where(before, 0.0, time)), event


def since(source: Source, time: pd.Series, start: pd.Series | None, what: str) -> pd.Series:
    """A time from diagnosis as one from the start of treatment, where `start` is given.

    Parameters
    ----------
    start : years from diagnosis to the start of treatment.
    what : name of the time.
    """
    if start is None:
        return time
    lost = (time.notna() & start.isna()).to_numpy(dtype=bool)
    if lost.any():
        source.findings.warn(f"{what}: no start of treatment in {rows_of(lost)}; no time there")
    return time - start


def either(
    first: tuple[pd.Series, pd.Series], second: tuple[pd.Series, pd.Series]
) -> tuple[pd.Series, pd.Series]:
    """The earlier of two failures, as time and event; a missing event of one leaves the other's."""
    happened_1, happened_2 = ((e == "1").fillna(False) for _, e in (first, second))
    both = pd.concat([first[0].where(happened_1), second[0].where(happened_2)], axis=1)
    event = pd.Series(np.where(happened_1 | happened_2, "1", "0"), dtype="string")
    unknown = first[1].isna() & second[1].isna()
    return both.min(axis=1), event.mask(unknown)
