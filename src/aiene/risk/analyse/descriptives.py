"""The cohort in tables: flow, table 1, counts, missing data, follow-up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from aiene.report.document import Figure, Table
from aiene.risk.analyse.charts.bars import draw_bars, draw_flow, draw_migration
from aiene.risk.analyse.cohort import Cohort, lower, numeric, words
from aiene.risk.analyse.design import make_design
from aiene.risk.analyse.grouping import CHAPTERS, Grouping, Groupings
from aiene.risk.analyse.records import figure_of, table_of
from aiene.risk.table.columns import BY_NAME
from aiene.stats.tests import largest_difference

_NUMBER, _CATEGORY = "number", "category"
_CHARACTERISTICS = (
    ("age", "Age, years", _NUMBER),
    ("sex", "Sex", _CATEGORY),
    ("ecog", "ECOG", _CATEGORY),
    ("pack_years", "Pack-years", _NUMBER),
    ("smoking_status", "Smoking", _CATEGORY),
    ("hpv", "HPV", _CATEGORY),
    ("t7", "T, edition 7", _CATEGORY),
    ("t8", "T, edition 8", _CATEGORY),
    ("n7", "N, edition 7", _CATEGORY),
    ("n8", "N, edition 8", _CATEGORY),
    ("largest_node_cm", "Largest node, cm", _NUMBER),
    ("ajcc8_stage", "", _CATEGORY),
    ("rtog0129", "RTOG-0129", _CATEGORY),
    ("treatment", "Treatment", _CATEGORY),
    ("n_ai_nodes", "Nodes found", _NUMBER),
    ("n_ai_ene", "AI-ENE nodes", _NUMBER),
    ("marker_class", "AI-ENE class", _CATEGORY),
    ("center", "Centre", _CATEGORY),
)
"""In clinical order: the patient, the tumour, the stage, the treatment, the software, the hospital."""
_WORDS: dict[str, dict[str, str]] = {
    "sex": {"female": "Female", "male": "Male"},
    "smoking_status": {"never": "Never", "former": "Former", "current": "Current"},
    "hpv": {"positive": "Positive", "negative": "Negative"},
    "rtog0129": {"low": "Low risk", "intermediate": "Intermediate risk", "high": "High risk"},
    "treatment": {
        "rt": "Radiotherapy alone",
        "crt": "Chemoradiotherapy",
        "rt_egfr": "Radiotherapy with EGFR inhibitor",
        "other": "Other",
    },
    **{column: {word: word for word in BY_NAME[column].words} for column in ("t7", "t8", "n7", "n8")},
}
"""How levels are shown, in their order; those of other columns as they are, by number and letter."""
_STRATA = ("positive", "negative", "")


def flow_table(cohort: Cohort, groupings: Groupings) -> Table:
    """The exclusions in their order; the last rows split the analysed patients by HPV and by group."""
    rows: list[dict[str, Any]] = [
        {"step": "Rows in the table", "left": None, "remaining": cohort.n_input, "reason": "start"}
    ]
    rows += [
        {"step": f"Left out: {s.reason}", "left": len(s.left), "remaining": s.after, "reason": s.name}
        for s in cohort.steps
    ]
    rows.append({"step": "Analysed", "left": None, "remaining": len(cohort.table), "reason": "analysed"})
    hpv = words(cohort.table, "hpv")
    for status in _STRATA:
        name = f"HPV-{status}" if status else "HPV unknown"
        count = int((hpv == status).sum())
        rows.append({"step": f"of these {name}", "left": None, "remaining": count, "reason": "hpv"})
    if groupings.combined is not None:
        count = int((groupings.combined.rank(cohort.table) < 0).sum())
        name = f"of these in no group of {groupings.combined.title}"
        rows.append({"step": name, "left": None, "remaining": count, "reason": "unclassifiable"})
    return table_of("flow", rows)


def flow_figure(cohort: Cohort) -> Figure:
    """The same as a diagram."""
    steps = []
    text = f"Rows in the table: n = {cohort.n_input}"
    for step in cohort.steps:
        if step.left:
            counted = Counter(why for _, why in step.left)
            detail = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
            lines = [f"{step.reason}: n = {len(step.left)}"]
            if len(detail) > 1:
                lines += [f"  {name}: {count}" for name, count in detail[:6]]
                rest = sum(count for _, count in detail[6:])
                lines += [f"  other: {rest}"] if rest else []
            steps.append({"text": text, "out": lines})
            text = f"Remaining: n = {step.after}"
    steps.append({"text": text, "out": []})
    hpv = words(cohort.table, "hpv")
    counts = {s or "unknown": int((hpv == s).sum()) for s in _STRATA}
    ends = [f"Analysed: n = {len(cohort.table)}", *(f"  HPV {name}: {n}" for name, n in counts.items())]
    data: dict[str, list[Any]] = {
        "step": ["start", *(s.name for s in cohort.steps), "analysed"],
        "left": [0, *(len(s.left) for s in cohort.steps), 0],
        "remaining": [cohort.n_input, *(s.after for s in cohort.steps), len(cohort.table)],
    }
    content = {"steps": steps, "ends": ends}
    return figure_of("flow", draw_flow, content, data, n_input=cohort.n_input, n=len(cohort.table))


def table_one(cohort: Cohort, grouping: Grouping) -> Table:
    """Characteristics by group: counts with shares, medians with quartiles, missing values as rows."""
    ranks = grouping.rank(cohort.table)
    groups = [("all", "All", np.ones(len(cohort.table), dtype=bool))]
    groups += [(f"g{r}", grouping.labels[r], ranks == r) for r in range(len(grouping.order))]
    if (ranks < 0).any():
        groups.append(("none", "in no group", ranks < 0))
    title = f"Patients by {lower(grouping.title)}"
    return _characteristics(f"table1_{grouping.name}", title, cohort.table, groups)


def table_one_hpv(cohort: Cohort) -> Table:
    """The same by HPV status, unknown as its own column."""
    hpv = words(cohort.table, "hpv")
    groups = [("all", "All", np.ones(len(hpv), dtype=bool))]
    groups += [(s or "unknown", f"HPV {s or 'unknown'}", hpv == s) for s in _STRATA]
    return _characteristics("table1_hpv", "Patients by HPV status", cohort.table, groups)


_Group = tuple[str, str, np.ndarray]


def _characteristics(name: str, title: str, table: pd.DataFrame, groups: list[_Group]) -> Table:
    rows = [_counts("Patients", "", {g: (int(m.sum()), None) for g, _, m in groups})]
    for column, label, kind in _CHARACTERISTICS:
        if column not in table or not table[column].notna().any():
            continue
        if column == "ajcc8_stage":
            rows += _chapter_rows(table, groups)
        elif kind == _NUMBER:
            rows += _number_rows(label, numeric(table, column), groups)
        else:
            rows += _category_rows(label, words(table, column), groups, _WORDS.get(column, {}))
    return table_of("characteristics", rows, name=name, title=title, part=groups)


_UNCOMPARED = ("all", "none", "unknown")


def _difference(values: np.ndarray, groups: list[_Group], levels: Sequence[str] = ()) -> float | None:
    """The largest standardised difference between two groups; of numbers where no levels are given."""
    own = [values[mask] for group, _, mask in groups if group not in _UNCOMPARED]
    if levels:
        own = [np.array([(v == level).sum() for level in levels]) for v in own]
    return largest_difference(own, levels=bool(levels))


def _chapter_rows(table: pd.DataFrame, groups: list[_Group]) -> list[dict[str, Any]]:
    """AJCC-8 within each of its chapters: a stage of the one is not that of the other."""
    chapter, stage, rows = words(table, "ajcc8_chapter"), words(table, "ajcc8_stage"), []
    for title, values, stages in CHAPTERS.values():
        inside = np.isin(chapter, values)
        known = np.where(np.isin(stage, stages), stage, "")
        if (known[inside] != "").any():
            own = [(g, label, mask & inside) for g, label, mask in groups]
            shown = {word: word for word in stages}
            rows += _category_rows(f"AJCC-8 stage, {title}", np.where(inside, known, ""), own, shown)
    return rows


def _counts(label: str, level: str, cells: dict[str, tuple[int, float | None]]) -> dict[str, Any]:
    row: dict[str, Any] = {"characteristic": label, "level": level, "form": "share"}
    for group, (count, share) in cells.items():
        row |= {f"{group}_value": count, f"{group}_low": share, f"{group}_high": None}
    return row


def _number_rows(label: str, values: np.ndarray, groups: list[_Group]) -> list[dict[str, Any]]:
    row: dict[str, Any] = {"characteristic": label, "level": "median (quartiles)", "form": "median"}
    missing: dict[str, tuple[int, float | None]] = {}
    for group, _, mask in groups:
        known = values[mask & ~np.isnan(values)]
        quartiles = np.percentile(known, (50, 25, 75)) if known.size else (None, None, None)
        row |= dict(zip((f"{group}_value", f"{group}_low", f"{group}_high"), quartiles, strict=True))
        missing[group] = (int(np.isnan(values[mask]).sum()), None)
    row["smd"] = _difference(values, groups)
    return [row, _counts(label, "missing", missing)] if any(c for c, _ in missing.values()) else [row]


def _level_key(level: str) -> tuple[float, str]:
    """By the number in it, such as that of `>=2`, then by letter."""
    digits = "".join(c for c in level if c.isdigit())
    return (float(digits) if digits else float("inf"), level)


def _category_rows(
    label: str, values: np.ndarray, groups: list[_Group], shown: dict[str, str]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    seen = {str(v) for v in values} - {""}
    levels = [*(w for w in shown if w in seen), *sorted(seen - set(shown), key=_level_key)]
    for level in levels:
        cells: dict[str, tuple[int, float | None]] = {}
        for group, _, mask in groups:
            known = int((values[mask] != "").sum())
            count = int((values[mask] == level).sum())
            cells[group] = (count, count / known if known else None)
        row = _counts(label, shown.get(level, level.replace(">=", "≥ ")), cells)
        rows.append(row if rows else row | {"smd": _difference(values, groups, levels)})
    missing: dict[str, tuple[int, float | None]] = {
        g: (int((values[m] == "").sum()), None) for g, _, m in groups
    }
    if any(c for c, _ in missing.values()):
        rows.append(_counts(label, "missing", missing))
    return rows


def missing_table(cohort: Cohort, covariates: Sequence[str]) -> Table:
    """How many analysed patients lack each covariate, and how many lack any."""
    design = make_design(cohort.table, covariates)
    n = len(cohort.table)
    rows: list[dict[str, Any]] = []
    for term in design.terms:
        gone = int(design.matrix[list(term.columns)].isna().any(axis=1).sum())
        rows.append({"covariate": term.label, "missing": gone, "share": gone / n, "reason": ""})
    rows += [
        {"covariate": label, "missing": None, "share": None, "reason": f"not used: {why}"}
        for label, why in design.dropped
    ]
    lost = n - int(design.complete.sum())
    whole = {"covariate": "Any of these", "missing": lost, "share": lost / n}
    rows.append(whole | {"reason": "lost by complete cases"})
    return table_of("missing", rows)


def count_figure(cohort: Cohort, *, cap: int) -> Figure:
    """Share of patients by number of AI-ENE nodes, within HPV strata."""
    counts = numeric(cohort.table, "n_ai_ene").astype(int)
    hpv = words(cohort.table, "hpv")
    values = list(range(cap + 1))
    labels = [str(v) for v in values[:-1]] + [f"≥ {cap}"]
    capped = np.minimum(counts, cap)
    series = []
    for status in _STRATA:
        mask = hpv == status
        if mask.any():
            numbers = [int((capped[mask] == v).sum()) for v in values]
            name = f"HPV {status or 'unknown'} (n = {int(mask.sum())})"
            shares = [k / int(mask.sum()) for k in numbers]
            series.append({"label": name, "value": shares, "count": numbers})
    data: dict[str, list[Any]] = {
        "group": [s["label"] for s in series for _ in values],
        "n_ai_ene": labels * len(series),
        "patients": [c for s in series for c in s["count"]],
        "share": [v for s in series for v in s["value"]],
    }
    content = {"labels": labels, "series": series, "x_label": "AI-ENE nodes per patient"}
    content["y_label"] = "Share of the stratum"
    return figure_of("counts", draw_bars, content, data, n=counts.size)


def migration_figure(cohort: Cohort, groupings: Groupings) -> Figure | None:
    """From the old groups to the new ones; None where there is only one kind."""
    old, new = groupings.base, groupings.combined
    if old is None or new is None:
        return None
    b = new.rank(cohort.table)
    counts, names, labels = [], [], []
    for part in groupings.bases:
        a = part.rank(cohort.table)
        chapter = f"{CHAPTERS[part.chapter][0]} " if part.chapter else ""
        names += [chapter + group for group in part.order]
        labels += [chapter + label for label in part.labels]
        counts += [[int(((a == i) & (b == j)).sum()) for j in range(len(new.order))]
                   for i in range(len(part.order))]  # fmt: skip
    total = sum(map(sum, counts))
    data: dict[str, list[Any]] = {
        "old": [name for name in names for _ in new.order],
        "new": list(new.order) * len(names),
        "patients": [c for row in counts for c in row],
    }
    titles = {"old_title": old.title, "new_title": "with AI-ENE"}
    content = {"old": labels, "new": list(new.labels), "counts": counts, **titles}
    return figure_of("migration", draw_migration, content, data, total=total, old=old.title)
