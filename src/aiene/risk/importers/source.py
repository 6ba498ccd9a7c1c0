"""A foreign table: headers matched, codes mapped, a record of what was understood, and the user's options."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import pandas as pd

from aiene.risk.table.columns import DAYS_PER_YEAR
from aiene.risk.table.values import Findings, listed, number, quoted, rows_of, understood

PER_YEAR: dict[str, float] = {"days": DAYS_PER_YEAR, "months": 12.0, "years": 1.0}
"""How many of a unit make a year."""

_SHOWN_CODES = 12
_DASHES = re.compile(r"[‐‑‒–—―−]")

_STAGE_TEXT = re.compile(r"^[rycp]*([TNM](?:is|x|\d[a-d]?))\s*(\(\d\))?$", re.IGNORECASE)
Origin = Literal["diagnosis", "rt_start", "rt_end"]


@dataclass(frozen=True)
class PreviewLine:
    """What was understood of one canonical column.

    Parameters
    ----------
    column : canonical name.
    source : header it came from, or what it was derived from.
    understood : unit, factor or rule in words.
    n_known, n_missing : patients.
    codings : the codes seen: as written, as understood, how often; empty for numbers.
    """

    column: str
    source: str
    understood: str
    n_known: int
    n_missing: int
    codings: tuple[tuple[str, str, int], ...] = ()


def same_header(text: str) -> str:
    """A header so that spelling variants agree: dashes, non-breaking and double blanks, case."""
    plain = _DASHES.sub("-", unicodedata.normalize("NFKC", str(text)))
    plain = re.sub(r"\s*([()\-])\s*", r"\1", plain)
    return re.sub(r"\s+", " ", plain).strip().casefold()


@dataclass
class Source:
    """A raw table on its way to the canonical one.

    Parameters
    ----------
    raw : text, see `read_raw`.
    findings : where problems go.
    rename : header that the importer asks for -> header of this table, where they differ.
    """

    raw: pd.DataFrame
    findings: Findings
    rename: Mapping[str, str] = field(default_factory=dict)
    preview: list[PreviewLine] = field(default_factory=list)
    used: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._headers = {same_header(name): str(name) for name in self.raw.columns}
        self._rename = {same_header(k): same_header(v) for k, v in self.rename.items()}

    def find(self, *headers: str) -> str | None:
        """The first of some headers that this table has, as it spells it."""
        for header in headers:
            asked = same_header(header)
            found = self._headers.get(self._rename.get(asked, asked))
            if found is not None:
                return found
        return None

    def need(self, *headers: str) -> None:
        """All of these must be there.

        Raises
        ------
        InputError : naming those that are not.
        """
        missing = [header for header in headers if self.find(header) is None]
        if missing:
            problem = f"it has no column {listed(missing, shown=8)}"
            remedy = "check --from, or name the table's own headers in a mapping file"
            raise self.findings.refuse(problem, remedy)

    def text(self, *headers: str) -> pd.Series:
        """The column of the first header that is there; all missing where none is."""
        found = self.find(*headers)
        if found is None:
            return pd.Series(pd.array([None] * len(self.raw), dtype="string"))
        self.used.add(found)
        return self.raw[found]

    def plain(self, column: str, *headers: str, understood: str = "as it stands") -> pd.Series:
        """A column taken over as text."""
        values = self.text(*headers)
        self.record(column, headers, understood, values)
        return values

    def coded(
        self, column: str, *headers: str, codes: Mapping[str, str | None], otherwise: str = "refused"
    ) -> pd.Series:
        """A column of codes as canonical words; an unknown code is a bad value with its rows.

        Parameters
        ----------
        codes : code in any case -> canonical word, or None where it means missing.
        otherwise : `refused`, or the word that every other code means.
        """
        texts = self.text(*headers)
        folded = {same_header(code): word for code, word in codes.items()}

        def read(text: str) -> str | None:
            asked = same_header(text)
            if asked in folded:
                return folded[asked] or ""
            return None if otherwise == "refused" else otherwise

        values, bad = understood(texts, read)
        if bad.any():
            allowed = listed(list(codes), shown=10)
            remedy = f"known codes are {allowed}; correct the others"
            self.bad_values(column, headers, texts, bad, remedy)
        words = pd.Series(pd.array(values.to_numpy(), dtype="string")).replace("", pd.NA)
        self.record(column, headers, "codes", words, codings_of(texts, words))
        return words

    def numbers(
        self, column: str, *headers: str, per: float = 1.0, unit: str = "", whole: str = "years"
    ) -> pd.Series:
        """A column of numbers, divided by `per` to make `whole`; what is no number is a bad value."""
        texts = self.text(*headers)
        values, bad = understood(texts, number)
        if bad.any():
            self.bad_values(column, headers, texts, bad, "correct them", what=", which is not a number")
        out = values.astype("float64") / per
        self.record(column, headers, f"{unit} / {per:g} = {whole}" if per != 1 else unit or "number", out)
        return out

    def bad_values(
        self,
        column: str,
        headers: tuple[str, ...],
        texts: pd.Series,
        bad: np.ndarray,
        remedy: str,
        *,
        what: str = "",
    ) -> None:
        """Tell of values that cannot be right, with their rows; see `Findings.bad_values`."""
        problem = f"{self.find(*headers)} holds {quoted(texts[bad])} in {rows_of(bad)}{what}"
        self.findings.bad_values(problem, remedy, column)

    def constant(self, word: str) -> pd.Series:
        """The same word for every patient."""
        return pd.Series(word, index=self.raw.index, dtype="string")

    def record(
        self,
        column: str,
        headers: tuple[str, ...],
        understood: str,
        values: pd.Series,
        codings: tuple[tuple[str, str, int], ...] = (),
    ) -> None:
        """Note what was understood of a column."""
        known = int(values.notna().sum())
        source = self.find(*headers) or (headers[0] if headers else "")
        self.preview.append(
            PreviewLine(column, source, understood, known, len(values) - known, codings[:_SHOWN_CODES])
        )

    @property
    def ignored(self) -> list[str]:
        """Headers that nothing was taken from."""
        return [str(name) for name in self.raw.columns if name not in self.used]


def codings_of(texts: pd.Series, words: pd.Series) -> tuple[tuple[str, str, int], ...]:
    """How often each code was seen, and as what: the most frequent first."""
    pairs = pd.DataFrame({"raw": texts.fillna(""), "word": words.fillna("missing")})
    counts = pairs.value_counts(sort=True).reset_index(name="n")
    rows = zip(counts["raw"], counts["word"], counts["n"], strict=True)
    return tuple((str(raw), str(word), int(n)) for raw, word, n in rows)


def stage_letter(letter: str, *, lower: str = "abc") -> Callable[[str], str | None]:
    """A reader of T, N or M as people write it: `T4A`, `4a`, `rT0`, `T2 (2)`; None where it makes no sense.

    Parameters
    ----------
    letter : T, N or M.
    lower : sub-letters that are kept; others are cut off (T1a of the glottis is T1).
    """

    def read(text: str) -> str | None:
        text = re.sub(r"(?<=\d)\.0+$", "", text)
        found = _STAGE_TEXT.match(text if text[:1].isalpha() and not text[:1].isdigit() else letter + text)
        if found is None:
            return None
        word = found.group(1)
        rest = word[1:].casefold()
        if rest == "x":
            return f"{letter}X"
        if rest == "is":
            return f"{letter}is"
        return letter + rest[0] + "".join(c for c in rest[1:] if c in lower)

    return read


def days_between(later: pd.Series, earlier: pd.Series) -> np.ndarray:
    """Whole days from one date to another, NaN where one is missing."""
    return (later - earlier).dt.days.to_numpy(dtype=float, na_value=np.nan)


# Options: what the table does not state itself


@dataclass(frozen=True)
class ImportOptions:
    """Choices of an import.

    Parameters
    ----------
    possible_is_event : RADCURE's `Possible` failures count as events.
    origin : when the clock starts, where the collection leaves a choice or does not say; None is its own.
    edition : of T and N, where the collection does not say (HECKTOR 2025): 7 or 8.
    hpv_one_is : what HPV 1 means, where the dictionary does not say (HECKTOR 2025).
    sheet : of a workbook, where not the usual one.
    """

    possible_is_event: bool = False
    origin: Origin | None = None
    edition: Literal["7", "8"] | None = None
    hpv_one_is: Literal["positive", "negative"] | None = None
    sheet: str | None = None
