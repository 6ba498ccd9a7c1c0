"""T, N and M of edition 7 as the collections write them."""

from __future__ import annotations

import pandas as pd

from aiene.risk.importers.source import Source, codings_of, stage_letter
from aiene.risk.table.columns import N7_WORDS, N8_WORDS, T_WORDS
from aiene.risk.table.problems import listed, rows_of
from aiene.risk.table.values import understood


def edition7(source: Source, t: str, n: str, m: str, site: pd.Series | None = None) -> dict[str, pd.Series]:
    """The columns t7, n7, m, edition_t and edition_n.

    T1a, T2b and the like of other sites lose their letter; N3a and N3b of edition 7 (nasopharynx) become N3;
    a suffix of two primaries is cut off. Each is told.

    Parameters
    ----------
    t, n, m : headers.

    Raises
    ------
    InputError : a value that is no T, N or M, unless lenient.
    """
    t7 = staged(source, "t7", t, "T", T_WORDS)
    n7 = staged(source, "n7", n, "N", N7_WORDS)
    seven = pd.Series(pd.array(["7"] * len(t7), dtype="string"))
    return {
        "t7": t7,
        "n7": n7,
        "m": staged(source, "m", m, "M", ("M0", "M1", "MX")),
        "edition_t": seven.where(t7.notna()),
        "edition_n": seven.where(n7.notna()),
    }


def staged(source: Source, column: str, header: str, letter: str, words: tuple[str, ...]) -> pd.Series:
    """One of T, N, M; what a word loses on the way is told."""
    texts = source.text(header)
    kept_letters = {"T": "abcd", "N": "abcd", "M": ""}[letter]
    full, bad = understood(texts, stage_letter(letter, lower=kept_letters))
    values = full.map(lambda word: _known(word, words))
    lost = (values.notna() & ((full != values) | texts.str.contains(r"[(r]", na=False))).to_numpy(dtype=bool)
    lost &= texts.notna().to_numpy(dtype=bool)
    unknown = bad | (texts.notna() & values.isna()).to_numpy(dtype=bool)
    if unknown.any():
        seen = listed([f'"{word}"' for word in pd.unique(texts[unknown])])
        source.findings.bad_values(
            f"{source.find(header)} holds {seen} in {rows_of(unknown)}", f"allowed are {', '.join(words)}"
        )
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


def by_edition(source: Source, edition: str | None, t: str, n: str, m: str) -> dict[str, pd.Series]:
    """T, N and M of a table that does not say its edition: taken only where the user says it.

    Raises
    ------
    InputError : a value that is no T, N or M, unless lenient.
    """
    if edition is None:
        source.findings.warn(
            "the table does not say which edition T and N are of; left out, or say --edition"
        )
        return {"m": staged(source, "m", m, "M", ("M0", "M1", "MX"))}
    if edition == "7":
        return edition7(source, t, n, m)
    t8, n8 = staged(source, "t8", t, "T", T_WORDS), staged(source, "n8", n, "N", N8_WORDS)
    eight = pd.Series(pd.array(["8"] * len(t8), dtype="string"))
    return {
        "t8": t8,
        "n8": n8,
        "m": staged(source, "m", m, "M", ("M0", "M1", "MX")),
        "edition_t": eight.where(t8.notna()),
        "edition_n": eight.where(n8.notna()),
    }
