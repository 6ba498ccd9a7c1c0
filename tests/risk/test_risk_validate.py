"""A locked model is applied as it is, and its faults on other patients are found as they were planted."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import InputError, UsageError
from aiene.report.document import Table
from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.locked_model import LockedModel, lock, locked_chapter, model_bytes, read_model
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import MARKER_TERM, cox, make_sample
from aiene.risk.schemes.scheme import read_scheme
from aiene.risk.table.files import write_table
from aiene.risk.table.read import complete
from aiene.risk.validate.run import validate
from aiene.stats.concordance import harrell_c
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import patients_for, required_sample
from builders.risk_cohorts import SCHEME, drawn

COVARIATES = ("hpv", "t", "age")


def sample_of(table: Any, endpoint: Any = "os") -> Any:
    cohort = make_cohort(table, AnalysisSettings()).table
    outcome, _ = outcome_of(cohort, endpoint)
    return make_sample("all", "All patients", cohort, outcome, COVARIATES)


def locked(table: Any, endpoint: str = "os", **words: Any) -> Any:
    return lock(sample_of(table, endpoint), cap=5, years=(2.0, 5.0), with_marker=True, scheme="none", **words)


def known(beta: Any, rate: Any, *, spread: float = 1.0) -> Any:
    """The model of patients with hazard `rate` times exp(`beta` nodes), its coefficient times `spread`."""
    years = np.linspace(0, 12, 2401)
    return LockedModel(
        "os_count", "Overall survival: count", "os", "cox", (MARKER_TERM,), (beta * spread,), (0.1,), (0.0,),
        99,
        tuple(years.tolist()), tuple((rate * years).tolist()), 12.0, {},
        {"patients": 100, "events": 50, "c": 0.6, "sd_linear_predictor": 1.0, "observed": {}},
        {"simulated": False},
    )  # fmt: skip


def patients(n: Any, beta: Any, rate: Any, seed: Any = 0, **columns: Any) -> Any:
    random = np.random.default_rng(seed)
    count = np.minimum(random.poisson(1.0, n), 5)
    time, last = random.exponential(1 / (rate * np.exp(beta * count))), random.uniform(3, 12, n)
    table = {
        "patient_id": [f"V{i}" for i in range(n)], "site": "oropharynx", "n_ai_ene": count,
        "ai_ene_source": "given", "os_time": np.minimum(time, last), "os_event": (time <= last).astype(int),
    }  # fmt: skip
    return complete(pd.DataFrame(table | columns))


def tables(analysis: Any) -> Any:
    return {name: table.rows for name, table in analysis.tables.items()}


def test_a_locked_model_is_read_back_as_it_was_and_predicts_what_the_fit_predicted(tmp_path: Path) -> None:
    table = drawn(300)
    model = locked(table)
    path = tmp_path / "m.json"
    path.write_bytes(model_bytes(model))
    assert read_model(path) == model
    sample = sample_of(table)
    outcome, design, count = sample.complete()
    matrix = design.matrix.assign(n_ai_ene=np.minimum(count, 5))[list(model.columns)]
    fit = cox(outcome.time, outcome.event, matrix)
    score, reason = read_model(path).linear_predictor(sample.table)
    assert ((reason == "") == sample.design.complete).all()
    assert set(reason) == {"", "HPV is missing"}
    np.testing.assert_allclose(
        model.risk(score[sample.design.complete], [2.0, 5.0]),
        1 - fit.model.survival(matrix.to_numpy(dtype=float), [2.0, 5.0]),
        rtol=1e-9,
    )


def test_a_changed_or_foreign_file_is_refused(tmp_path: Path) -> None:
    model = locked(drawn(200))
    path = tmp_path / "m.json"
    content = json.loads(model_bytes(model))
    content["coefficients"][0] += 0.001
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="changed after it was locked"):
        read_model(path)
    for text in ("{}", "[1]", "nonsense", json.dumps({"format": "aiene locked model 1", "sha256": "x"})):
        path.write_text(text)
        with pytest.raises(InputError, match="not a locked model"):
            read_model(path)
    with pytest.raises(UsageError, match="do not fit its covariates"):
        replace(model, means=model.means[1:])


def test_levels_that_the_model_never_saw_and_other_editions_are_not_guessed() -> None:
    table = drawn(260, t7=np.resize(["T1", "T2", "T3"], 260))
    model = locked(table)
    assert "t_T4" not in model.columns
    other = drawn(120, seed=5)
    score, reason = model.linear_predictor(other)
    unseen = (other["t7"] == "T4a").to_numpy() & other["hpv"].notna().to_numpy()
    assert unseen.sum() > 10
    assert all("a level that the model was not fitted on" in r for r in reason[unseen])
    assert np.isnan(score[unseen]).all()
    with pytest.raises(UsageError, match="edition"):
        model.linear_predictor(other.assign(edition_t="8", t8=other["t7"], t7=None))
    with pytest.raises(NotEstimableError, match="gives no risk at 40"):
        model.risk(np.zeros(1), [40.0])


@pytest.mark.slow
def test_a_planted_shift_of_risk_and_of_spread_is_found(tmp_path: Path) -> None:
    """Hazards 1.4 times as high: O/E as the two closed forms say. Coefficients twice too large: slope 0.5."""
    beta, rate = 0.4, 0.04
    table = patients(1500, beta, 1.4 * rate, center=np.resize(["A", "B", "C", "D"], 1500), seed=1)
    settings = AnalysisSettings(bootstraps=0, calibration_years=(3.0,), decision_years=3.0, jobs=1)
    made = validate(
        [known(beta, rate, spread=2.0), known(beta, rate)], table, out=tmp_path, settings=settings
    )
    by_model = tables(made)["calibration"]
    extreme, right = by_model
    count = table["n_ai_ene"].to_numpy(dtype=float)
    risks = [1 - np.exp(-r * rate * 3 * np.exp(beta * count)).mean() for r in (1.4, 1.0)]
    assert right["predicted"] == pytest.approx(risks[1], abs=1e-3)
    assert 1 < right["oe_lower"] < risks[0] / risks[1] < right["oe_upper"]
    assert right["slope_lower"] < 1 < right["slope_upper"]
    assert right["slope_upper"] - right["slope_lower"] < 0.5
    assert extreme["slope"] == pytest.approx(right["slope"] / 2, rel=1e-6)
    rows = tables(made)
    assert rows["discrimination"][1]["c"] == rows["discrimination"][0]["c"]  # the same order of patients
    pooled = rows["centres"][-1]
    assert pooled["centre"].startswith("Pooled")
    assert pooled["oe_lower"] < right["oe"] < pooled["oe_upper"]
    assert 0 <= pooled["oe_i2"] <= 1
    assert rows["brier"][1]["brier"] < rows["brier"][1]["null"]
    assert rows["brier"][0]["brier"] > rows["brier"][1]["brier"]
    page = (tmp_path / "report.html").read_text()
    for words in ("Observed/expected", "smooth", "I²", "nothing refitted"):
        assert words in page


def test_with_death_competing_the_model_is_calibrated_where_it_was_made() -> None:
    table = drawn(400, seed=3)
    model = locked(table, "dc")
    assert model.kind == "fine_gray"
    sample = sample_of(table, "dc")
    outcome, _, _ = sample.complete()
    score, _ = model.linear_predictor(sample.table)
    inside = score[sample.design.complete]
    assert model.development["c"] == harrell_c(outcome.time, outcome.event, inside).c
    assert model.risk(inside, [5.0]).mean() == pytest.approx(model.development["observed"]["5"], abs=0.02)


@pytest.mark.slow
def test_an_analysis_locks_its_models_with_points_that_add_up_to_their_risk(tmp_path: Path) -> None:
    settings = AnalysisSettings(covariates=COVARIATES)
    cohort = make_cohort(drawn(260), settings)
    section, part = locked_chapter(cohort, read_scheme(SCHEME), ("os",), settings, tmp_path)
    assert not part.skipped
    files, points = [item for item in section.items if isinstance(item, Table)][:2]
    assert [r["file"] for r in files.rows] == ["models/os_clinical.json", "models/os_clinical_count.json"]
    model = read_model(tmp_path / files.rows[1]["file"])
    assert model.sha256 == files.rows[1]["sha256"]
    assert model.coefficients == locked(drawn(260)).coefficients
    assert 0 < files.rows[1]["shrinkage"] < 1
    assert files.rows[1]["needed"] >= max(files.rows[1][k] for k in ("for_shrinkage", "for_optimism"))
    unit = model.coefficients[0]
    sums = [r for r in points.rows if r["term"] == "Sum of points"]
    for row in sums:
        score = np.array([float(row["level"]) * unit - np.dot(model.means, model.coefficients)])
        assert row["risk5"] == pytest.approx(model.risk(score, [5.0])[0, 0], abs=1e-9)
    # the centre as covariate means nothing elsewhere
    own = AnalysisSettings(covariates=("age", "center"))
    with_center = make_cohort(drawn(200, center=np.resize(["A", "B"], 200)), own)
    _, part = locked_chapter(with_center, read_scheme(SCHEME), ("os",), own, tmp_path / "other")
    assert all("no other centre can apply it" in s.reason for s in part.skipped)
    assert len(part.skipped) == 2


def test_patients_needed_are_those_of_the_criteria() -> None:
    """Riley's published example: R2 0.051, 30 parameters, 5143 patients for a slope of 0.9."""
    n, parameters = 10_000, 30
    likelihood_ratio = 700.0
    found = required_sample(n, 1346, 20_700.0, parameters, likelihood_ratio, 2.0)
    assert found.shrinkage == pytest.approx(1 - 30 / 700)
    assert found.r2 == pytest.approx(found.shrinkage * (1 - np.exp(-0.07)))
    assert found.r2_max == pytest.approx(1 - np.exp(2 * (1346 * np.log(1346 / 20_700) - 1346) / n))
    goal = 30 / (-0.1 * np.log(1 - found.r2 / 0.9))
    assert found.for_shrinkage == np.ceil(goal)
    # the share of events within two years, known within 0.05: as for a Poisson rate
    survival = np.exp(-2 * 1346 / 20_700)
    events = (1.96 * survival * 2 * (1346 / 20_700) / 0.05) ** 2
    assert found.for_risk == pytest.approx(events / (1346 / n), abs=1)
    assert patients_for(30, 0.051, 0.9) == 5143
    with pytest.raises(UsageError, match="needs patients"):
        required_sample(10, 0, 20.0, 1, 5.0, 2.0)


@pytest.fixture(scope="module")
def files() -> dict[str, Any]:
    """Two locked models."""
    return {"m.json": model_bytes(locked(drawn(260))), "dc.json": model_bytes(locked(drawn(260), "dc"))}


@pytest.fixture
def cli(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Any) -> Any:
    monkeypatch.chdir(tmp_path)
    write_table(drawn(150, seed=8, center=np.resize(["A", "B"], 150)), tmp_path / "cohort.csv")
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    def call(*words: Any, code: Any = 0) -> Any:
        result = CliRunner().invoke(app, ["risk", *(str(w) for w in words)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return call


@pytest.mark.slow
def test_a_scheme_is_judged_by_its_ranks(cli: Any, tmp_path: Path) -> None:
    words = ("--bootstraps", 4, "--years", "3,5", "--jobs", 1, "--endpoint", "os", "--json")
    told = json.loads(cli("validate", SCHEME, "cohort.csv", "-o", "rep", *words).stdout)
    assert {"discrimination", "centres"} <= set(told["tables"])
    assert "calibration" not in told["tables"]
    found = json.loads((tmp_path / "rep" / "analysis.json").read_text())
    assert found["locked"][0]["sha256"] == read_scheme(SCHEME).sha256
    groups = pd.read_csv(tmp_path / "cohort.csv")
    rank = {"low": 0, "intermediate": 1, "high": 2, "very high": 3}
    kept = groups[groups["combined_group"].isin(rank)]
    c = harrell_c(kept["os_time"], kept["os_event"], kept["combined_group"].map(rank)).c
    assert found["tables"]["discrimination"]["rows"][1]["c"] == pytest.approx(c, abs=1e-12)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("m.json", "--against", "dc.json"), "different endpoints"),
        ((SCHEME, "--against", "m.json"), "--against compares models"),
        (("m.json", "--endpoint", "os"), "a model has its own"),
        (("none.json",), "no such file"),
        (("m.json", "--years", "two"), "write years as"),
        (("m.json", "--site", "larynx"), "no patient is left"),
    ],
)
def test_wrong_words_end_in_one_sentence(cli: Any, words: Any, part: str) -> None:
    found = cli("validate", words[0], "cohort.csv", "-o", "rep", *words[1:], code=2)
    assert part in " ".join(found.stderr.split())


def test_what_lies_in_the_way_is_not_overwritten(cli: Any, tmp_path: Path) -> None:
    (tmp_path / "rep").mkdir()
    (tmp_path / "rep" / "report.html").write_text("mine")
    cli("validate", "m.json", "cohort.csv", "-o", "rep", "--bootstraps", 0, code=2)
    assert (tmp_path / "rep" / "report.html").read_text() == "mine"
