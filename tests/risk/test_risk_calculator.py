"""The calculator page and the nomogram say what the locked model says."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.design import with_one_edition
from aiene.risk.analyse.locked_model import calculator_page, lock, nomogram
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import make_sample
from builders.risk_cohorts import drawn

COVARIATES = ("hpv", "pack_years", "t", "age")
TABLE = with_one_edition(make_cohort(drawn(400), AnalysisSettings()).table, COVARIATES)


def locked(endpoint: Any) -> Any:
    outcome, _ = outcome_of(TABLE, endpoint)
    sample = make_sample("all", "All patients", TABLE, outcome, COVARIATES)
    return lock(sample, cap=5, years=(2.0, 5.0), with_marker=True, scheme="s"), sample


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which("chromium"), reason="needs chromium")
@pytest.mark.parametrize("endpoint", ["os", "dc"])
def test_the_page_computes_the_risks_of_the_locked_model(tmp_path: Path, endpoint: str) -> None:
    model, sample = locked(endpoint)
    (tmp_path / "c.html").write_text(calculator_page(model, banner=""))
    row = int(np.flatnonzero(sample.design.complete & (sample.count > 0))[0])
    patient = sample.table.iloc[[row]].reset_index(drop=True)
    t = {"T1": "T0-T2", "T2": "T0-T2", "T3": "T3", "T4a": "T4"}[patient.t7[0]]
    told = f"n_ai_ene={patient.n_ai_ene[0]}&hpv={patient.hpv[0]}&t={t}&age={patient.age[0]}"
    address = f"file://{tmp_path}/c.html#{told}&pack_years={patient.pack_years[0]}"
    seen = subprocess.run(
        ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", address],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    risks = [float(r) for r in re.findall(r'data-risk="([\d.]+)"', seen)]
    wanted = model.risk(model.linear_predictor(patient)[0], [1.0, 2.0, 3.0, 5.0])[0]
    assert risks == pytest.approx(wanted, abs=1e-9)


def test_the_page_is_one_file_that_says_what_it_is_not() -> None:
    model, _ = locked("os")
    text = calculator_page(model, banner="SIMULATED")
    assert "not a medical device" in text
    assert "SIMULATED" in text
    assert "default-src 'none'" in text
    assert not re.search(r'(src|href)="', text)
    assert 'name="n_ai_ene"' in text
    assert "<option>positive</option>" in text


@pytest.mark.slow
@pytest.mark.parametrize("endpoint", ["os", "dc"])
def test_points_of_the_nomogram_add_up_to_the_risk_of_the_model(endpoint: str) -> None:
    model, sample = locked(endpoint)
    figure = nomogram(model, sample)
    content = figure.draw.args[0]  # type: ignore[attr-defined]
    axes = {a["label"]: dict(a["values"]) for a in content["axes"]}
    assert max(p for a in axes.values() for p in a.values()) == pytest.approx(100)
    assert min(p for a in axes.values() for p in a.values()) == pytest.approx(0)
    age = next(iter(axes["Age, years"]))
    table = sample.table.iloc[:1].assign(
        n_ai_ene=2, hpv="negative", t7="T3", t_covariate="T3", age=float(age)
    )
    pack = next(iter(axes["Pack-years"]))
    table = table.assign(pack_years=float(pack)).reset_index(drop=True)
    tumour = next(v for k, v in axes.items() if k.startswith("T"))
    points = axes["AI-ENE nodes"]["2"] + axes["HPV"]["negative"] + tumour["T3"]
    points += axes["Age, years"][age] + axes["Pack-years"][pack]
    for scale in content["scales"]:
        year = float(scale["label"].split()[2])
        risk = model.risk(model.linear_predictor(table)[0], [year])[0, 0]
        percent, at = zip(*((int(r.rstrip("%")) / 100, p) for r, p in scale["values"]), strict=True)
        on_scale = np.interp(points, at, np.log(-np.log(1 - np.array(percent))))
        if min(at) <= points <= max(at):
            assert 1 - np.exp(-np.exp(on_scale)) == pytest.approx(risk, abs=1e-9)
    assert figure.draw().get_axes()
