"""Cut-offs derived from the data: what the search may learn, and what the count is credited with."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.risk.analyse.cohort import make_cohort
from aiene.risk.analyse.derive.chapter import derive_chapter, scheme_file
from aiene.risk.analyse.derive.search import class_of, search
from aiene.risk.analyse.derive.validate import (
    GAIN,
    Data,
    bootstrap_rows,
    centre_rows,
    cross_validated,
    permuted,
    split_mask,
    split_rows,
    tree_table,
)
from aiene.risk.analyse.grouping import make_groupings
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.staging.stage import StagingOptions
from aiene.risk.stratify import stratify
from aiene.stats.concordance import harrell_c
from aiene.stats.cox_model import fit_cox
from builders.risk_cohorts import SCHEME, drawn


def planted(n: Any = 500, cut: Any = 3, seed: Any = 4) -> Any:
    random = np.random.default_rng(seed)
    base, count = random.integers(0, 3, n), random.integers(0, 6, n)
    hazard = 0.1 * np.exp(0.7 * base + 1.6 * (count >= cut))
    time, last = random.exponential(1 / hazard), random.uniform(2, 9, n)
    return np.minimum(time, last), (time <= last).astype(int), base, count


def test_the_search_finds_a_planted_cut_and_lists_every_candidate() -> None:
    time, event, base, count = planted()
    found = search(time, event, base, count, n_bases=3)
    assert 3 in found.cutoffs
    cuts = [t for t in found.trials if t.step == "cut-offs"]
    assert len(cuts) == 1 + 5 + 10
    assert [t.verdict for t in cuts].count("chosen") == 1
    assert found.group[0, 0] == 0
    assert (np.diff(found.group, axis=1) >= 0).all()
    assert found.group.max() == found.assign(base, count).max()
    assert len([t for t in found.trials if t.step == "groups"]) > 2


def test_the_test_part_takes_no_part_in_the_derivation() -> None:
    time, event, base, count = planted()
    train = split_mask(event, AnalysisSettings())
    before = search(time[train], event[train], base[train], count[train], n_bases=3)
    other = np.where(train, time, time[::-1])
    after = search(other[train], event[train], base[train], count[train], n_bases=3)
    assert before.cutoffs == after.cutoffs
    np.testing.assert_array_equal(before.group, after.group)
    assert abs(event[train].mean() - event[~train].mean()) < 0.02


@pytest.mark.slow
def test_a_useless_count_gains_in_appearance_and_not_after_correction() -> None:
    time, event, base, _ = planted()
    gains, corrected = [], []
    for seed in range(3):
        count = np.random.default_rng(seed).integers(0, 6, time.size)
        rows = bootstrap_rows(Data(time, event, base, count, 3), AnalysisSettings(bootstraps=20, seed=seed))
        gain = next(r for r in rows if r["measure"] == "Difference in C")
        gains.append(gain["apparent"])
        corrected.append(gain["value"])
    assert np.mean(corrected) < np.mean(gains) + 1e-12
    assert abs(np.mean(corrected)) < 0.015


@pytest.mark.slow
def test_a_real_count_stands_out_from_shuffled_ones() -> None:
    time, event, base, count = planted()
    (table,) = permuted(Data(time, event, base, count, 3), AnalysisSettings(permutations=25, derive="nested"))
    assert table.rows[0]["verdict"].startswith("above")  # type: ignore[call-overload, union-attr]
    assert table.rows[0]["observed"] > table.rows[0]["upper"]  # type: ignore[call-overload, union-attr]


def test_too_few_events_leave_the_old_groups() -> None:
    time, event, base, count = planted(60)
    found = search(time, event * (np.arange(60) < 12), base, count, n_bases=3)
    assert found.cutoffs == ()
    np.testing.assert_array_equal(found.assign(base, count), base)


def test_classes_of_counts() -> None:
    np.testing.assert_array_equal(class_of(np.array([0, 1, 2, 3, 9]), (1, 3)), [0, 1, 1, 2, 2])


def test_derived_groups_are_judged_by_centres_too() -> None:
    table = drawn(360, seed=6, effect=0.8)
    rank = {"low": 0, "intermediate": 1, "high": 2}
    base = np.array([rank.get(b, 0) for b in table["rtog0129"]])
    data = Data(
        table["os_time"].to_numpy(dtype=float), table["os_event"].to_numpy(dtype=int), base,
        table["n_ai_ene"].to_numpy(dtype=int), 3,
    )  # fmt: skip
    rows = centre_rows(data, np.resize(["A", "B", "C"], 360).astype(object), AnalysisSettings(bootstraps=10))
    assert len(rows) == 16
    assert sum(r["n"] for r in rows[:12:4]) == 360
    pooled = {r["measure"]: r for r in rows[12:]}
    assert pooled[GAIN]["lower"] < pooled[GAIN]["value"] < pooled[GAIN]["upper"]
    assert 0 <= pooled[GAIN]["i2"] <= 1


def cohort_of(
    n: Any,
    seed: Any,
    *,
    hazard_ratio: Any,
    rates: tuple[float, float, float] = (1.0, 1.8, 3.0),
    rate: float = 0.035,
) -> Any:
    """Old groups with the given relative rates and a skewed count that knows nothing of them."""
    random = np.random.default_rng(seed)
    base = random.choice(3, n, p=[0.45, 0.3, 0.25])
    count = np.minimum(random.negative_binomial(0.8, 0.45, n), 9)
    hazard = rate * np.array(rates)[base] * hazard_ratio**count
    time, last = random.exponential(1 / hazard), random.uniform(1, 8, n)
    return Data(np.minimum(time, last), (time <= last).astype(int), base, count, 3)


def split_gain(data: Any, settings: Any) -> Any:
    """Gain of the test part with its p, what was found, and the test part."""
    test = ~split_mask(data.event, settings)
    found = data.derive(np.flatnonzero(~test))
    gain = next(r for r in split_rows(data, found, test, settings) if r["measure"] == GAIN)
    return gain, found, test


@pytest.mark.slow
def test_a_wrong_order_of_the_old_groups_is_not_credited_to_a_useless_count() -> None:
    """With the old groups upside down any grouping that ignores them beats their given rank."""
    gains, significant = [], 0
    for seed in range(40):
        data = cohort_of(500, seed, hazard_ratio=1.0, rates=(3.0, 1.8, 1.0))
        gain, found, _ = split_gain(data, AnalysisSettings(bootstraps=100, seed=seed))
        gains.append(gain["value"])
        significant += bool(gain.get("p", 1.0) < 0.05)
        if found.cutoffs:
            assert not found.order_held
    assert abs(np.mean(gains)) < 0.01
    assert significant <= 4  # P = 0.05 for more than 4 of 40 at 5 %


@pytest.mark.slow
def test_derived_groups_keep_at_least_half_of_what_cox_gains_from_the_count() -> None:
    derived, by_cox = [], []
    for seed in range(25):
        data = cohort_of(1000, seed, hazard_ratio=1.3)
        gain, _, test = split_gain(data, AnalysisSettings(bootstraps=0, seed=seed))
        assert "lower" not in gain
        derived.append(gain["value"])
        old = np.column_stack([data.base == 1, data.base == 2]).astype(float)
        both = np.column_stack([old, np.minimum(data.count, 5)])
        c = [
            harrell_c(data.time[test], data.event[test], model.risk(x[test])).c
            for x in (old, both)
            for model in (fit_cox(data.time[~test], data.event[~test], x[~test]),)
        ]
        by_cox.append(c[1] - c[0])
    assert np.mean(by_cox) > 0.03
    assert np.mean(derived) > 0.5 * np.mean(by_cox)


@pytest.mark.slow
def test_where_no_cut_off_is_found_nothing_is_different_and_has_no_interval() -> None:
    data = cohort_of(300, 2, hazard_ratio=1.0, rate=0.01)
    gain, found, _ = split_gain(data, AnalysisSettings(bootstraps=50))
    assert found.cutoffs == ()
    assert gain["value"] == 0
    assert "p" not in gain
    assert "lower" not in gain
    rows = cross_validated(data, AnalysisSettings(bootstraps=0, folds=3, repeats=1))
    same = next(r for r in rows if r["measure"] == GAIN)
    share = next(r for r in rows if r["measure"] == "Share with a cut-off")
    assert share["value"] == 0
    assert (same["value"], np.isnan(same["lower"])) == (0, True)


def test_bounds_of_groups_never_split_what_the_order_cannot_tell_apart() -> None:
    data = cohort_of(800, 3, hazard_ratio=1.5)
    found = data.derive(np.arange(800))
    assert found.cutoffs
    assert (np.diff(found.group, axis=1) >= 0).all()
    assert (np.diff(found.group, axis=0) >= 0).all()
    sizes = np.bincount(found.assign(data.base, data.count))
    assert sizes.min() >= 40
    assert sorted(set(found.group.ravel())) == list(range(found.n_groups))


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "how"), [(0.8, "split"), (0.0, "nested")])
def test_the_chapter_says_who_chose_and_draws_derived_groups_only_where_there_are_some(
    tmp_path: Path, effect: float, how: Any
) -> None:
    settings = AnalysisSettings(
        bootstraps=4, permutations=2, derive=how, derive_endpoint="os", folds=3, repeats=1, jobs=1
    )
    cohort = make_cohort(drawn(320, seed=9, effect=effect), settings)
    scheme = read_scheme(SCHEME)
    groupings = make_groupings(cohort.table, scheme)
    section, part = derive_chapter(cohort, groupings, scheme, ("os",), settings, tmp_path, None)
    tables: Any = {i.name: i for i in section.items if hasattr(i, "rows")}  # type: ignore[union-attr]
    if effect:
        written = (tmp_path / "scheme_derived.toml").read_text()
        assert "the training part of" in written
        assert read_scheme(tmp_path / "scheme_derived.toml").source.kind == "derived"
        assert tables["derived_within"].rows[0]["p"] < 0.05
        assert "km_os_derived" in tables
    else:
        assert not (tmp_path / "scheme_derived.toml").exists()
        assert "derived_within" not in tables
        assert "km_os_derived" not in tables
    assert {r["measure"] for r in tables["derived_worth"].rows} >= {GAIN}
    assert not part.skipped


@pytest.mark.slow
def test_with_ajcc8_as_base_each_chapter_has_its_own_search_and_scheme(tmp_path: Path) -> None:
    settings = AnalysisSettings(
        bootstraps=4, permutations=2, derive="split", derive_endpoint="os", jobs=1, hpv_strata=False
    )
    plain = stratify(
        drawn(600, seed=9, effect=0.9), read_scheme(SCHEME), options=StagingOptions(ene_unknown="negative")
    )
    pooled = replace(
        read_scheme("count-0-1-2plus"), name="pooled", base="ajcc8", groups=("low", "high"), monotone=False,
        mapping=dict.fromkeys(("0", "I", "II", "III", "IV", "IVA", "IVB", "IVC"), ("low", "low", "high")),
    )  # fmt: skip
    cohort = make_cohort(stratify(plain, pooled), settings)
    groupings = make_groupings(cohort.table, pooled)
    section, _ = derive_chapter(cohort, groupings, pooled, ("os",), settings, tmp_path, None)
    tables: Any = {i.name: i for i in section.items if hasattr(i, "rows")}  # type: ignore[union-attr]
    names = [(type(i), i.name) for i in section.items if hasattr(i, "name")]
    assert len(names) == len(set(names))
    assert {"derived_worth_p16_positive", "derived_worth_p16_negative"} <= set(tables)
    assert not (tmp_path / "scheme_derived.toml").exists()
    for chapter, grouping in (("p16_positive", groupings.bases[0]), ("p16_negative", groupings.bases[1])):
        inside = int((grouping.rank(cohort.table) >= 0).sum())
        judged = max(r["n"] for r in tables[f"derived_worth_{chapter}"].rows)
        assert judged == pytest.approx(inside / 2, abs=2)
        file = tmp_path / scheme_file(chapter)
        if file.exists():
            assert read_scheme(file).base == f"ajcc8_{chapter}"
            assert set(read_scheme(file).mapping) >= set(grouping.order)
    assert (tmp_path / scheme_file("p16_positive")).exists()


def test_the_tree_finds_a_planted_jump_and_its_c_is_that_of_other_patients() -> None:
    random = np.random.default_rng(8)
    n = 1200
    base, count = random.integers(0, 3, n), np.minimum(random.poisson(1.2, n), 6)
    hazard = 0.05 * np.where(count >= 2, 4.0, 1.0)
    failure, last = random.exponential(1 / hazard), random.uniform(2, 8, n)
    data = Data(np.minimum(failure, last), (failure <= last).astype(int), base, count, 3)
    train = np.arange(n) % 2 == 0
    table = tree_table(data, train, data.derive(np.flatnonzero(train)), ("low", "middle", "high"))
    assert sum(r["n"] for r in table.rows) == train.sum()
    assert sum(r["events"] for r in table.rows) == data.event[train].sum()
    assert [r["ratio"] for r in table.rows] == sorted(r["ratio"] for r in table.rows)
    low, high = table.rows[0], table.rows[-1]
    assert low["nodes"] in ("0", "1", "0 to 1")
    assert high["nodes"].split()[0] >= "2"
    assert float(table.note.split(": tree ")[1][:5]) > 0.6
    same = tree_table(data, np.ones(n, dtype=bool), data.derive(np.arange(n)), ("low", "middle", "high"))
    assert "too high" in same.note


def test_a_tree_of_a_count_that_says_nothing_does_not_split_by_it() -> None:
    data = cohort_of(800, 4, hazard_ratio=1.0)
    train = np.arange(800) % 2 == 0
    rows = tree_table(data, train, data.derive(np.flatnonzero(train)), ("low", "middle", "high")).rows
    assert 1 <= len(rows) <= 5
    assert min(r["n"] for r in rows) >= 20
