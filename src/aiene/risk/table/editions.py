"""The edition of the TNM classification that T and N were read by: stated, by the column, or as asked for."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from aiene.risk.table.values import Findings, listed, rows_of

_OWN_NAMES = {
    "t": ("t", "ct", "t_stage", "t_category"),
    "n": ("n", "cn", "n_stage", "n_category"),
    "m": ("cm", "m_stage", "m_category"),
    "edition": ("edition", "tnm_edition", "ajcc_edition", "uicc_edition"),
}
"""Headers that hold T, N, M or the edition of both without saying which canonical column they are."""

_EDITION = re.compile(
    r"(?:(?:ajcc|uicc|tnm)[ -]?)?(?:v|ed\.?|edition|version)? ?([789])(?:\.0+|th)?(?: ed(?:\.|ition)?)?"
)


def edition_of(text: str) -> str | None:
    """`7`, `8` or `9` of the usual ways to write an edition (`AJCC 8`, `8th`, `7.0`); else None."""
    found = _EDITION.fullmatch(text.strip().casefold())
    return found.group(1) if found else None


def placed(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Columns called T, N, M and edition as canonical ones: `t7` or `t8`, by the edition of each row.

    Parameters
    ----------
    table : headers as the canonical table has them, where they are known.
    findings : its `edition` is the user's word for rows that do not say it themselves.
    """
    folded = {re.sub(r"[\s.-]+", "_", str(name).strip().casefold()): str(name) for name in table}
    names = {role: next((folded[n] for n in own if n in folded), None) for role, own in _OWN_NAMES.items()}
    out = table.copy()
    if names["m"] is not None and "m" not in out:
        out = out.rename(columns={names["m"]: "m"})
    edition = names["edition"]
    unsaid = []
    for letter in "tn":
        header = names[letter]
        if header is None or any(f"{letter}{number}" in out for number in "789"):
            continue
        words = _editions(out, letter, names["edition"], findings)
        given = out[header].notna()
        if (given & words.isna()).any():
            unsaid.append(str(header))
        odd = (given & words.notna() & ~words.isin(["7", "8", "9"])).to_numpy(dtype=bool)
        if odd.any():
            seen = listed([f'"{word}"' for word in pd.unique(words[odd])])
            problem = f"the edition of {header} is {seen} in {rows_of(odd)}"
            findings.bad_values(problem, "allowed are 7, 8 and 9", f"edition_{letter}")
        given &= ~odd
        out[f"edition_{letter}"] = words.where(given)
        out[header] = out[header].where(given)
        old, newest = (words == "7").fillna(False), ((words == "9") & (letter == "n")).fillna(False)
        for number, rows in (("7", old), ("9", newest), ("8", ~old & ~newest)):
            if (rows & given).any():
                out[f"{letter}{number}"] = out[header].where(rows)
        out = out.drop(columns=header)
        read = [f"{letter}{number}" for number in "789" if f"{letter}{number}" in out]
        findings.note(f"the column {header} is read as {' and '.join(read) or 'missing'}, by its edition")
    if edition is not None and {"edition_t", "edition_n"} & set(out):
        out = out.drop(columns=edition)
    if unsaid:
        columns = f"the column{'s' * (len(unsaid) > 1)} {' and '.join(unsaid)}"
        findings.wrong(
            f"{columns} {'do' if len(unsaid) > 1 else 'does'} not state the TNM edition",
            "use --edition 7 or --edition 8 if it is the same for all patients; otherwise add the columns "
            "edition_t and edition_n",
            "edition_t", "edition_n",
        )  # fmt: skip
    return out


def _editions(table: pd.DataFrame, letter: str, shared: str | None, findings: Findings) -> pd.Series:
    """The edition of each row: its own column's, else that of T and N, else as asked for; else NA."""
    own = f"edition_{letter}" if f"edition_{letter}" in table else shared
    words = pd.Series(pd.NA, table.index, dtype="string") if own is None else table[own].astype("string")
    words = words.map(lambda word: edition_of(word) or word, na_action="ignore")
    return words if findings.edition is None else words.fillna(findings.edition)


def filled(table: pd.DataFrame, findings: Findings) -> pd.DataFrame:
    """Editions that a typed table leaves out: as asked for, else by the column (`t7` is of edition 7)."""
    out = table.copy()
    for letter in "tn":
        name = f"edition_{letter}"
        old, new = out[f"{letter}7"].notna(), out[f"{letter}8"].notna()
        other = ((old | new) & out[name].notna() & (out[name] != (findings.edition or ""))).fillna(False)
        if findings.edition is not None and other.any():
            findings.warn(
                f"--edition {findings.edition} is ignored where {name} states another ({rows_of(other)})"
            )
        by_column = pd.Series(np.where(old, "7", "8"), index=out.index, dtype="string")
        asked = by_column if findings.edition is None else findings.edition
        nameless = (out[name].isna() & (old ^ new)).to_numpy(dtype=bool)
        if nameless.any() and name not in findings.flawed:
            out[name] = out[name].mask(nameless, asked)
            said = (
                "as asked for" if findings.edition is not None else f"by the column, {letter}7 or {letter}8"
            )
            findings.note(f"{name}: {said}, in {rows_of(nameless)}")
    return out
