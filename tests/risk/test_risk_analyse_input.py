"""What users bring: too little, too much alike, missing, separated."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.errors import UsageError
from aiene.report.style import Picture
from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.design import make_design
from aiene.risk.analyse.records import AnalysisSettings, parse_endpoints
from aiene.risk.analyse.regression import cox_part, make_sample
from aiene.risk.analyse.run import analyse
from aiene.risk.schemes.scheme import read_scheme
from builders.risk_cohorts import SCHEME, drawn, eight, plain_scheme

pytestmark = pytest.mark.slow

FAST = AnalysisSettings(bootstraps=0, jobs=1, hpv_strata=False)


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The drawings have their own tests; here they would only take time."""
    blank = Picture(b'<svg viewBox="0 0 1 1"></svg>', b"")
    monkeypatch.setattr("aiene.report.write.render", lambda *_: blank)


def run(table: Any, out: Any, *endpoints: Any, scheme: Any = None, settings: Any = FAST) -> Any:
    return analyse(
        table,
        endpoints=endpoints or ("os",),
        scheme=scheme or read_scheme(SCHEME),
        out=out,
        settings=settings,
    )


@pytest.mark.slow
def test_an_endpoint_without_columns_is_skipped_with_its_reason(tmp_path: Path) -> None:
    table = drawn(80)
    table[["lrf_time", "lrf_event"]] = None
    made = run(table, tmp_path, "os", "lrc")
    assert made.exit_code == 1
    said = json.loads((tmp_path / "analysis.json").read_text())["skipped"]
    assert any("lrc" in s["what"] and "lrf_time and lrf_event" in s["reason"] for s in said)
    assert "km_os_marker" in made.tables
    assert "lrf_time and lrf_event" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_all_is_missing_still_makes_a_report(tmp_path: Path) -> None:
    table = drawn(60)
    table[["dm_time", "dm_event"]] = None
    made = run(table, tmp_path, "dc")
    assert made.exit_code == 1
    assert (tmp_path / "report.html").exists()
    assert "table1_combined" in made.tables


def test_no_count_at_all_is_one_sentence(tmp_path: Path) -> None:
    table = drawn(60)
    table["n_ai_ene"] = None
    with pytest.raises(UsageError, match="60 of 60 were left out because of 'no AI-ENE count'"):
        run(table, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_empty_table_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no patient"):
        run(drawn(60).iloc[:0], tmp_path)


@pytest.mark.slow
def test_eight_patients_get_a_report_and_a_warning(tmp_path: Path) -> None:
    made = run(
        eight(), tmp_path, "os", "dc", scheme=plain_scheme(), settings=AnalysisSettings(bootstraps=4, jobs=1)
    )
    assert any("Only 8 patients" in w for w in made.warnings)
    assert made.exit_code == 0


@pytest.mark.slow
def test_five_patients_with_one_event_get_a_report(tmp_path: Path) -> None:
    made = run(
        eight().iloc[2:7],
        tmp_path,
        "dc",
        scheme=plain_scheme(),
        settings=AnalysisSettings(bootstraps=4, jobs=1),
    )
    assert (tmp_path / "report.html").exists()
    assert made.tables["km_dc_marker"].rows[0]["n"] == 2


@pytest.mark.slow
def test_a_single_group_has_curves_and_no_test(tmp_path: Path) -> None:
    table = drawn(60)
    table["n_ai_ene"] = np.zeros(60, dtype=int)
    made = run(table.drop(columns=["combined_group", "marker_class"]), tmp_path, "dc")
    row = made.tables["km_dc_marker_tests"].rows[0]
    assert row.get("p") is None
    assert "every patient is in one group" in row["reason"]


@pytest.mark.slow
def test_no_event_at_all_is_said(tmp_path: Path) -> None:
    made = run(drawn(60, dm_event=0), tmp_path, "os", "dc")
    assert any("none of 60 patients has the event" in s.reason for s in made.skipped)
    assert made.tables["km_dc_marker"].rows[0]["events"] == 0


@pytest.mark.slow
def test_no_event_in_one_group_is_no_failure(tmp_path: Path) -> None:
    table = drawn(160)
    table.loc[(table["n_ai_ene"] == 0).to_numpy(dtype=bool), "dm_event"] = 0
    made = run(table, tmp_path, "dc", settings=AnalysisSettings(bootstraps=4, jobs=1, hpv_strata=False))
    rows = {r["group"]: r for r in made.tables["cif_dc_marker"].rows}
    assert rows["0 AI-ENE nodes"]["events"] == 0
    assert rows["0 AI-ENE nodes"]["cif3"] == 0


def test_perfect_separation_is_said_and_fitted_by_firth() -> None:
    table = drawn(120, sex="male")
    table.loc[:39, "sex"] = "female"
    table.loc[:39, "os_event"] = 0
    cohort = make_cohort(table, FAST)
    outcome, _ = outcome_of(cohort.table, "os")
    sample = make_sample("all", "All patients", cohort.table, outcome, ("sex", "age"))
    part = cox_part(sample, FAST)
    table_ = next(i for i in part.items if i.__class__.__name__ == "Table")
    assert "Separation" in table_.note  # type: ignore[union-attr]
    assert "Firth" in table_.note  # type: ignore[union-attr]
    male = next(r for r in table_.rows if r["term"] == "Sex")  # type: ignore[call-overload, union-attr]
    assert male["adj_method"] == "firth"  # type: ignore[call-overload]
    assert np.isfinite(male["adj_hr"])  # type: ignore[call-overload]


@pytest.mark.slow
def test_infinite_values_never_reach_the_json(tmp_path: Path) -> None:
    run(eight(), tmp_path, "os", "dc", scheme=plain_scheme())

    def refuse(word: Any) -> None:
        raise AssertionError(word)

    json.loads((tmp_path / "analysis.json").read_text(), parse_constant=refuse)


def test_a_site_that_is_not_asked_for_is_left_out_and_named() -> None:
    table = drawn(50)
    table.loc[:19, "site"] = "larynx"
    cohort = make_cohort(table, FAST)
    assert len(cohort.table) == 30
    assert set(cohort.steps[0].left) == {(f"P{i:04d}", "larynx") for i in range(20)}
    assert len(make_cohort(table, AnalysisSettings(sites=())).table) == 50


def test_a_covariate_that_says_nothing_is_dropped_with_its_reason() -> None:
    design = make_design(drawn(50, sex="male", age=np.nan), ("sex", "age", "t"))
    assert dict(design.dropped) == {
        "Sex": "the same in every patient",
        "Age, per 10 years": "missing in every patient",
    }
    assert [t.name for t in design.terms] == ["t"]


def test_a_factor_without_its_reference_takes_the_first_level_that_is_there() -> None:
    table = drawn(60)
    table["t7"] = ["T3", "T4a"] * 30
    term = make_design(table, ("t",)).terms[0]
    assert len(term.columns) == 1
    matrix = make_design(table, ("t",)).matrix
    assert matrix.nunique().tolist() == [2]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [(["os", "dc", "os"], ("os", "dc")), (["DM", " lrf "], ("dc", "lrc")), (["dfs"], ("dfs",))],
)
def test_endpoints_are_read_by_their_names(words: list[str], wanted: Any) -> None:
    assert parse_endpoints(words) == wanted


@pytest.mark.parametrize("words", [[], ["pfs"], [""]])
def test_an_unknown_endpoint_is_one_sentence(words: Any) -> None:
    with pytest.raises(UsageError, match="os, dc, lrc, dfs"):
        parse_endpoints(words)


@pytest.mark.parametrize(
    "wrong",
    [
        {"bootstraps": -1},
        {"bootstraps": 1},
        {"confidence": 1.0},
        {"horizons": (0.0,)},
        {"train_fraction": 0.95},
        {"folds": 1},
        {"covariates": ("shoe_size",)},
        {"ene_thresholds": (1.5,)},
        {"jobs": 0},
        {"marker_cap": 0},
    ],
)
def test_a_setting_out_of_its_range_is_one_sentence(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        AnalysisSettings(**wrong)
