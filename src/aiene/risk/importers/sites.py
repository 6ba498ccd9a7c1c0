"""Primary sites as people write them."""

from __future__ import annotations

import pandas as pd

from aiene.risk.importers.source import Source

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
