"""What is imputed keeps to what is known of the patient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.risk.analyse.cohort import make_cohort, outcome_of
from aiene.risk.analyse.records import AnalysisSettings
from aiene.risk.analyse.regression import make_sample
from aiene.risk.analyse.sensitivity import other_models
from aiene.risk.analyse.sensitivity.other_models import imputed_part
from builders.risk_cohorts import drawn


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the imputation was asked for and gave."""
    calls = []
    real = other_models.impute  # type: ignore[attr-defined]

    def spy(*arguments: Any, **words: Any) -> Any:
        calls.append((words, real(*arguments, **words)))
        return calls[-1][1]

    monkeypatch.setattr(other_models, "impute", spy)
    return calls


def cohort(n: Any = 260) -> Any:
    """Half of the pack-years are known by their class alone, smokers smoke more."""
    random = np.random.default_rng(5)
    table = drawn(n, seed=12)
    years = random.gamma(1.2, 18, n)
    missing = random.random(n) < 0.5
    status = np.where(years > 12, "current", np.where(random.random(n) < 0.5, "former", None))  # type: ignore[call-overload]
    classes = np.where(years > 10, "gt10", "le10").astype(object)
    classes[missing & (random.random(n) < 0.2)] = None
    return table.assign(
        pack_years=np.where(missing, np.nan, years),
        pack_years_class=pd.array(classes, dtype="string"),
        smoking_status=pd.array(status, dtype="string"),
    )


def test_pack_years_are_imputed_within_their_class_and_death_and_smoking_predict(seen: Any) -> None:
    table = cohort()
    settings = AnalysisSettings(imputations=4, confidence=0.9)
    analysed = make_cohort(table, settings).table
    outcome, _ = outcome_of(analysed, "dc")
    sample = make_sample("all", "All patients", analysed, outcome, ("hpv", "pack_years", "age", "sex"))
    (shown,) = imputed_part(sample, settings).items
    words, imputed = seen[0]
    assert set(np.unique(words["event"])) == {0, 1, 2}
    assert "smoking_status" in words["predictors"]
    own = sample.table.loc[sample.design.matrix["hpv_positive"].notna()].reset_index(drop=True)
    holes, known = own["pack_years"].isna(), own["pack_years_class"]
    assert holes.sum() > 80
    for filled in imputed.tables:
        years = filled["pack_years"]
        assert (years[holes & (known == "gt10")] > 1).all()
        assert (years[holes & (known == "le10")] <= 1).all()
        assert years.notna().all()
    current = holes & known.isna() & (own["smoking_status"] == "current")
    others = holes & known.isna() & (own["smoking_status"] != "current")
    means = [(t["pack_years"][current].mean(), t["pack_years"][others].mean()) for t in imputed.tables]
    assert np.mean([a > b for a, b in means]) == 1
    assert "within the patient's pack-years class" in shown.note  # type: ignore[union-attr]
    assert "90% intervals" in shown.note  # type: ignore[union-attr]
    assert "smoking status" in shown.note  # type: ignore[union-attr]
