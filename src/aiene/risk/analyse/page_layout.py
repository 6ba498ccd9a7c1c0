"""How the page of an analysis is laid out: what is shown at once, what is folded away, and numbers of all."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from aiene.report.document import Figure, Fold, Item, Section, Table

_SHOWN = re.compile(
    r"(flow|counts|migration|follow_up|missing|interaction|key_results|locked_models|multiplicity)"
    r"|table1_(?!hpv).*"
    r"|forest_.*_all|(cox|finegray)_.*_all|ph_.*_all"
    r"|(optimism|calibration|decision)_[a-z]+"
    r"|subgroups_[a-z]+"
)
"""Tables and figures that a reader of the whole report needs; the others are opened one chapter at a time.

Where a figure and a table have one of these names, the figure is shown.
"""
_TWINS = re.compile(r"flow|(calibration|decision|subgroups)_[a-z]+")
_CURVES = re.compile(r"(km|cif)_([a-z]+)_(.+?)(_hpv|_tests)?")
_OPEN = ("key-results", "derived", "thresholds", "methods")


def laid_out(sections: Sequence[Section]) -> tuple[Section, ...]:
    """The sections with what is not needed at once folded away at the end of each."""
    return tuple(s if s.name in _OPEN else _folded(s) for s in sections)


def _folded(section: Section) -> Section:
    main = _main_curves(section)
    shown = [item for item in section.items if _is_shown(item, main)]
    if not any(isinstance(i, Table) and i.name.startswith("optimism_") for i in shown):  # nothing resampled
        shown += [i for i in section.tables if i.name.startswith("lrt_")]
    hidden = tuple(item for item in section.items if item not in shown)
    named = [item for item in hidden if isinstance(item, Table | Figure)]
    if not named:
        return section
    tables = sum(isinstance(item, Table) for item in named)
    figures = len(named) - tables
    counts = " and ".join(
        f"{n} {word}{'s' * (n > 1)}" for n, word in ((figures, "figure"), (tables, "table")) if n
    )
    return replace(section, items=(*shown, Fold(f"{section.title}: {counts} more", hidden)))


def _main_curves(section: Section) -> tuple[str, ...]:
    """Curves that are shown: by count and by combined groups; with death competing where it competes."""
    found = [m for i in section.figures if (m := _CURVES.fullmatch(i.name))]
    groupings = {m[3] for m in found}
    kind = "cif" if any(m[1] == "cif" for m in found) else "km"
    last = "combined" if "combined" in groupings else "marker"
    return (kind, "marker", last)


def _is_shown(item: Item, main: tuple[str, ...]) -> bool:
    if not isinstance(item, Table | Figure):
        return True
    if isinstance(item, Table) and _TWINS.fullmatch(item.name):
        return False
    curves = _CURVES.fullmatch(item.name)
    if not curves:
        return bool(_SHOWN.fullmatch(item.name))
    kind, _, grouping, suffix = curves.groups()
    if isinstance(item, Table):
        return kind == main[0] and grouping == main[2] and suffix is None
    return kind == main[0] and grouping in main[1:]


def numbered(sections: Sequence[Section]) -> tuple[tuple[Section, ...], dict[str, str]]:
    """Sections, tables and figures with their numbers before their titles; folded ones are S1, S2 and so on.

    Returns
    -------
    The sections, and the number by anchor (`tab-NAME`, `fig-NAME`, name of a section), such as "Table 3".
    """
    counts = dict.fromkeys(("Table ", "Figure ", "Table S", "Figure S"), 0)
    labels: dict[str, str] = {}

    def number(item: Item, folded: bool) -> Item:
        if isinstance(item, Fold):
            return replace(item, items=tuple(number(i, True) for i in item.items))
        if not isinstance(item, Table | Figure):
            return item
        word = f"{'Table' if isinstance(item, Table) else 'Figure'} {'S' if folded else ''}"
        counts[word] += 1
        label = f"{word}{counts[word]}"
        labels[f"{'tab' if isinstance(item, Table) else 'fig'}-{item.name}"] = label
        return replace(item, title=f"{label}. {item.title}")

    found = []
    for place, section in enumerate(sections, 1):
        labels[section.name] = f"Section {place}"
        items = tuple(number(item, False) for item in section.items)
        found.append(replace(section, title=f"{place}. {section.title}", items=items))
    return tuple(found), labels


def places(row: Mapping[str, object], labels: Mapping[str, str]) -> list[tuple[str, str]]:
    """Where a checklist item is found: (number, anchor) of its section, then of its tables and figures."""
    shows = row.get("shows")
    anchors = [row.get("anchor"), *(shows if isinstance(shows, list | tuple) else ())]
    return [(labels[str(a)], str(a)) for a in anchors if str(a) in labels]
