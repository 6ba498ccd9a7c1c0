"""What users get wrong, and cohorts that hold too little: one sentence each, never a silent number."""

from __future__ import annotations

import json
import pickle
from typing import Any

import numpy as np
import pandas as pd
import pytest

from aiene.errors import AieneError, UsageError
from aiene.stats.calibration import calibration
from aiene.stats.clinical_utility import decision_curve, groome, reclassification
from aiene.stats.competing_risks import cumulative_incidence, fine_gray
from aiene.stats.concordance import concordance, harrell_c, uno_c
from aiene.stats.count_covariate import (
    count_columns,
    count_distribution,
    restricted_cubic_spline,
    spline_knots,
)
from aiene.stats.cox import cox, firth
from aiene.stats.cox_model import find_separation, fit_cox, nested_lrt
from aiene.stats.imputation import impute, rubin
from aiene.stats.internal_validation import optimism, permutation_control
from aiene.stats.proportional_hazards import proportional_hazards
from aiene.stats.records import NotEstimableError
from aiene.stats.sample_size import information
from aiene.stats.survival_curves import follow_up, kaplan_meier, nelson_aalen, rmst, rmst_difference
from aiene.stats.tests import gray_pairwise, gray_test, log_rank, log_rank_pairwise, log_rank_trend
from aiene.stats.time_dependent_accuracy import brier_score, time_dependent_auc
from builders.survival_cohorts import as_json, simulated

N = 40
RNG = np.random.default_rng(3)
TIME = RNG.exponential(2.0, N)
STATE = RNG.integers(0, 3, N)
EVENT = (STATE == 1).astype(int)
X = pd.DataFrame({"x": RNG.normal(size=N), "b": RNG.integers(0, 2, N).astype(float)})
GROUP = np.where(X.b > 0, "high", "low")
CHANCE = np.linspace(0.05, 0.95, N)

# every analysis as a function of times, codes and a group, all other input being good
ANALYSES = {
    "kaplan_meier": lambda t, e, g: kaplan_meier(t, e),
    "follow_up": lambda t, e, g: follow_up(t, e),
    "cumulative_incidence": lambda t, e, g: cumulative_incidence(t, e),
    "nelson_aalen": lambda t, e, g: nelson_aalen(t, e),
    "rmst": lambda t, e, g: rmst(t, e, 1.0),
    "log_rank": log_rank,
    "log_rank_pairwise": log_rank_pairwise,
    "log_rank_trend": lambda t, e, g: log_rank_trend(t, e, g, order=["low", "high"]),
    "gray_test": gray_test,
    "gray_pairwise": gray_pairwise,
    "cox": lambda t, e, g: cox(t, e, X[: len(t)]),
    "firth": lambda t, e, g: firth(t, e, X[: len(t)]),
    "fit_cox": lambda t, e, g: fit_cox(t, e, X[: len(t)]),
    "fine_gray": lambda t, e, g: fine_gray(t, e, X[: len(t)]),
    "proportional_hazards": lambda t, e, g: proportional_hazards(t, e, X[: len(t)]),
    "harrell_c": lambda t, e, g: harrell_c(t, e, X.x[: len(t)]),
    "uno_c": lambda t, e, g: uno_c(t, e, X.x[: len(t)]),
    "concordance": lambda t, e, g: concordance(t, e, {"x": X.x[: len(t)]}, n_boot=5),
    "time_dependent_auc": lambda t, e, g: time_dependent_auc(t, e, X.x[: len(t)], [1.0]),
    "brier_score": lambda t, e, g: brier_score(t, e, CHANCE[: len(t)], [1.0]),
    "calibration": lambda t, e, g: calibration(t, e, CHANCE[: len(t)], 1.0),
    "decision_curve": lambda t, e, g: decision_curve(t, e, {"x": CHANCE[: len(t)]}, 1.0, [0.2], n_boot=4),
    "reclassification": lambda t, e, g: reclassification(
        t, e, g, g[::-1], levels=["low", "high"], horizon=1.0, n_boot=4
    ),
    "groome": lambda t, e, g: groome(t, e, g, order=["low", "high"], horizon=1.0),
}
every = pytest.mark.parametrize("name", ANALYSES)


def spoiled(values: np.ndarray, value: float) -> np.ndarray:
    out = np.asarray(values, dtype=float).copy()
    out[3] = value
    return out


@every
@pytest.mark.parametrize(
    ("time", "event"),
    [
        (spoiled(TIME, -1.0), EVENT),
        (spoiled(TIME, np.nan), EVENT),
        (spoiled(TIME, np.inf), EVENT),
        (TIME, spoiled(EVENT, np.nan)),
        (TIME, spoiled(EVENT, 3)),
        (TIME, spoiled(EVENT, -1)),
        (TIME, EVENT[:-1]),
        (TIME, np.array(["dead"] * N)),
        (np.array(["long"] * N), EVENT),
    ],
    ids=[
        "negative",
        "nan",
        "infinite",
        "event-nan",
        "code-3",
        "code-minus-1",
        "short",
        "words",
        "time-words",
    ],
)
def test_wrong_times_and_codes_are_refused_by_every_analysis(name: Any, time: Any, event: Any) -> None:
    with pytest.raises(UsageError) as refused:
        ANALYSES[name](time, event, GROUP)
    assert str(refused.value).endswith(".")


@every
def test_no_patient_is_told_by_every_analysis(name: Any) -> None:
    with pytest.raises(AieneError):
        ANALYSES[name](np.array([]), np.array([]), np.array([]))


FINE_WITHOUT_EVENTS = {
    "kaplan_meier",
    "follow_up",
    "cumulative_incidence",
    "nelson_aalen",
    "rmst",
    "brier_score",
}
FINE_WITHOUT_EVENTS |= {"decision_curve", "log_rank_pairwise", "gray_pairwise"}


@every
def test_all_censored_is_a_flat_curve_or_a_sentence(name: Any) -> None:
    if name in FINE_WITHOUT_EVENTS:
        result = ANALYSES[name](TIME, np.zeros(N), GROUP)
        assert as_json(result) is not None
        return
    with pytest.raises(NotEstimableError) as refused:
        ANALYSES[name](TIME, np.zeros(N), GROUP)
    assert str(refused.value).endswith(".")
    assert ";" in str(refused.value)


def sentence_or_json(analysis: Any) -> str:
    """What a report would hold: the result without NaN, or the sentence that says why there is none."""
    try:
        return json.dumps(as_json(analysis()), allow_nan=False)
    except NotEstimableError as refused:
        return str(refused)


@every
@pytest.mark.parametrize(
    ("time", "event"),
    [
        (np.array([1.0, 2, 3, 4, 5]), np.array([1, 0, 1, 0, 1])),
        (np.ones(N), EVENT),
        (np.zeros(N), EVENT),
        (np.where(np.arange(N) % 4 == 0, 0.0, TIME), EVENT),
        (np.round(TIME), EVENT),
        (TIME, np.ones(N, int)),
        (TIME, np.where(np.arange(N) == 7, 1, 0)),
    ],
    ids=["five-patients", "all-at-once", "all-at-zero", "some-at-zero", "ties", "all-events", "one-event"],
)
def test_poor_cohorts_give_a_result_or_a_sentence(name: Any, time: Any, event: Any) -> None:
    group = GROUP[: len(time)] if len(time) == N else np.array(["low", "low", "high", "high", "low"])
    answer = sentence_or_json(lambda: ANALYSES[name](time, event, group))
    assert answer.endswith(".") or json.loads(answer) is not None


@pytest.mark.parametrize(
    "test",
    [log_rank, log_rank_pairwise, gray_test, gray_pairwise],
)
def test_one_group_cannot_be_compared(test: Any) -> None:
    with pytest.raises(NotEstimableError, match="two groups"):
        test(TIME, EVENT, np.array(["only"] * N))


@pytest.mark.parametrize("label", [None, np.nan, pd.NA])
def test_a_missing_group_is_refused(label: Any) -> None:
    labels = np.array(GROUP, dtype=object)
    labels[0] = label
    with pytest.raises(UsageError, match="missing labels"):
        log_rank(TIME, EVENT, labels)


def test_a_group_outside_the_order_is_named() -> None:
    with pytest.raises(UsageError, match="high"):
        log_rank(TIME, EVENT, GROUP, order=["low", "middle"])


def test_a_group_without_events_still_has_a_test_and_a_pair_that_cannot_be_told_is_nan() -> None:
    group = np.where(np.arange(N) < 10, "none", GROUP)
    event = np.where(group == "none", 0, EVENT)
    assert log_rank(TIME, event, group).df == 2
    # two groups of which neither has an event
    silent = np.where(np.arange(N) < 20, np.where(np.arange(N) < 10, "a", "b"), "c")
    pairs = log_rank_pairwise(TIME, np.where(silent == "c", 1, 0), silent)
    nothing = next(pair for pair in pairs if (pair.first, pair.second) == ("a", "b"))
    assert np.isnan(nothing.p_holm)
    assert sum(np.isfinite(pair.p) for pair in pairs) == 2


def test_perfect_separation_is_named_and_answered_by_a_penalised_estimate() -> None:
    table = pd.DataFrame({"x": X.x, "never": ((EVENT == 0) & (np.arange(N) % 2 == 0)).astype(float)})
    assert find_separation(TIME, EVENT, table) == ("never",)
    fit = cox(TIME, EVENT, table)
    assert (fit.method, fit.separation) == ("firth", ("never",))
    assert "perfect separation by never" in fit.warnings[0]
    assert np.isfinite([value for row in fit.rows for value in row[1:]]).all()
    with pytest.raises(NotEstimableError, match="never"):
        proportional_hazards(TIME, EVENT, table)
    with pytest.raises(NotEstimableError, match="penalised"):
        nested_lrt(cox(TIME, EVENT, table[["never"]]), fit)
    assert not fit_cox(TIME, EVENT, table).converged


def test_separation_by_a_combination_of_columns_is_seen() -> None:
    level = np.where((EVENT == 0) & (np.arange(N) % 2 == 0), "none", np.where(X.x > 0, "a", "b"))
    table = pd.DataFrame({"a": (level == "a") * 1.0, "b": (level == "b") * 1.0, "x": RNG.normal(size=N)})
    assert find_separation(TIME, EVENT, table) == ("a", "b")
    assert cox(TIME, EVENT, table).method == "firth"


def test_fine_gray_names_the_column_that_separates() -> None:
    table = pd.DataFrame({"never": ((STATE != 1) & (np.arange(N) % 2 == 0)).astype(float)})
    with pytest.raises(NotEstimableError, match="never runs to infinity"):
        fine_gray(TIME, STATE, table)


def test_a_model_without_separation_is_left_alone() -> None:
    assert find_separation(TIME, EVENT, X) == ()
    assert cox(TIME, EVENT, X).method == "efron"


@pytest.mark.parametrize(
    ("design", "error", "words"),
    [
        (X.assign(c=1.0), NotEstimableError, "c is the same"),
        (X.assign(c=X.x * 2 + X.b), NotEstimableError, "c follows from"),
        (X.assign(c=np.nan), UsageError, "missing or infinite values in c"),
        (X[[]], NotEstimableError, "no covariate"),
        (X[:-1], UsageError, "39 rows for 40"),
        (pd.concat([X, X], axis=1), UsageError, "two columns"),
    ],
    ids=["constant", "collinear", "missing", "empty", "short", "twice"],
)
def test_designs_that_cannot_be_fitted_are_named(design: Any, error: Any, words: str) -> None:
    for model in (cox, firth, fine_gray):
        with pytest.raises(error, match=words):
            model(TIME, EVENT, design)


def test_horizons_beyond_follow_up_are_told() -> None:
    far = float(TIME.max()) + 5
    last = np.where(TIME.max() == TIME, 0, EVENT)
    assert kaplan_meier(TIME, last).at([far])[0].beyond_followup
    for analysis in (
        lambda: time_dependent_auc(TIME, last, X.x, [far]),
        lambda: brier_score(TIME, last, CHANCE, [far]),
        lambda: calibration(TIME, last, CHANCE, far),
        lambda: decision_curve(TIME, last, {"x": CHANCE}, far, [0.5]),
        lambda: reclassification(TIME, last, GROUP, GROUP, levels=["low", "high"], horizon=far),
        lambda: rmst(TIME, last, far),
    ):
        with pytest.raises(NotEstimableError, match="horizon"):
            analysis()


def test_a_score_or_probability_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match="39 values for 40"):
        harrell_c(TIME, EVENT, X.x[:-1])
    with pytest.raises(UsageError, match="missing"):
        harrell_c(TIME, EVENT, spoiled(X.x, np.nan))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="from 0 to 1"):
        calibration(TIME, EVENT, CHANCE * 2, 1.0)
    with pytest.raises(UsageError, match="no such score: y"):
        concordance(TIME, EVENT, {"x": X.x}, compare=[("x", "y")])
    with pytest.raises(UsageError, match="thresholds"):
        decision_curve(TIME, EVENT, {"x": CHANCE}, 1.0, [0.0])
    with pytest.raises(UsageError, match="horizons"):
        time_dependent_auc(TIME, EVENT, X.x, [1.0, 1.0])
    with pytest.raises(UsageError, match="at least 2"):
        concordance(TIME, EVENT, {"x": X.x}, n_boot=1)


def test_percent_given_for_risk_is_refused() -> None:
    with pytest.raises(UsageError, match="from 0 to 1"):
        decision_curve(TIME, EVENT, {"x": CHANCE * 100}, 1.0, [0.5])


def test_competing_codes_are_refused_where_they_have_no_meaning() -> None:
    for analysis in (kaplan_meier, nelson_aalen):
        with pytest.raises(UsageError, match="codes are 0, 1"):
            analysis(TIME, STATE)
    with pytest.raises(UsageError, match="codes are 0, 1"):
        harrell_c(TIME, STATE, X.x)


def test_models_that_are_not_nested_are_not_compared() -> None:
    one, other = cox(TIME, EVENT, X[["x"]]), cox(TIME, EVENT, X[["b"]])
    with pytest.raises(UsageError, match="every covariate"):
        nested_lrt(one, other)
    with pytest.raises(UsageError, match="same ones"):
        nested_lrt(cox(TIME[:-1], EVENT[:-1], X[["x"]][:-1]), cox(TIME, EVENT, X))
    with pytest.raises(UsageError, match="two completed"):
        rubin([one])


def test_strata_have_no_single_prediction_and_three_groups_no_difference() -> None:
    fit = cox(TIME, EVENT, X[["x"]], strata=GROUP)
    with pytest.raises(UsageError, match="strata"):
        fit.model.survival(X[["x"]], [1.0])
    with pytest.raises(UsageError, match="two groups"):
        rmst_difference(TIME, EVENT, np.arange(N) % 3, 0.2)


def test_counts_and_knots_that_do_not_fit_are_refused() -> None:
    with pytest.raises(UsageError, match="counts"):
        count_columns([1, -1])
    with pytest.raises(UsageError, match="rise"):
        count_columns([1, 2], form="categorical", cutoffs=(2, 1))
    with pytest.raises(UsageError, match="form"):
        count_columns([1, 2], form="cubic")  # type: ignore[arg-type]
    with pytest.raises(NotEstimableError, match="too few"):
        spline_knots([0, 0, 1, 1])
    with pytest.raises(UsageError, match="rising knots"):
        restricted_cubic_spline([1, 2], [1, 1, 2])
    with pytest.raises(UsageError, match="0 to 1"):
        count_distribution([0.5, 1.2])
    with pytest.raises(UsageError, match="negative"):
        information(-1, 2)


def test_what_must_never_be_imputed_is_refused() -> None:
    table = pd.DataFrame(
        {"hpv": ["positive", None], "n_ai_ene": [1, None], "os_event": [1, None], "age": [50, None]}
    )
    for column in ("hpv", "n_ai_ene", "os_event"):
        with pytest.raises(UsageError, match="never be imputed"):
            impute(table, [column], time=[1, 2], event=[0, 1])
    with pytest.raises(NotEstimableError, match="age has 1 known value"):
        impute(table, ["age"], time=[1, 2], event=[0, 1])
    with pytest.raises(UsageError, match="not in the table: weight"):
        impute(table, ["weight"], time=[1, 2], event=[0, 1])


def test_a_derivation_that_mostly_fails_is_not_validated() -> None:
    def fit(patients: Any, _: Any) -> None:
        if len(set(patients.tolist())) < N:
            raise NotEstimableError("too few", "more")
        return

    with pytest.raises(NotEstimableError, match="resamples could be estimated"):
        optimism(fit, lambda model, patients: [0.0], N, names=["c"], n_boot=5)
    with pytest.raises(UsageError, match="at least 2 permutations"):
        permutation_control(lambda marker: 0.0, X.x, n_perm=1)


def test_the_error_survives_pickling_between_processes() -> None:
    error = NotEstimableError("no event happened", "choose another endpoint")
    back = pickle.loads(pickle.dumps(error))  # noqa: S301
    assert str(back) == str(error) == "no event happened; choose another endpoint."


@pytest.mark.slow
def test_a_quarter_of_a_million_patients_have_curves_tests_and_c_in_seconds() -> None:
    big = simulated(250_000, 1)
    group = np.where(big.x > 0, "high", "low")
    assert kaplan_meier(big.time, big.state).n == 250_000
    assert log_rank(big.time, big.state, group).df == 1
    assert 0.6 < harrell_c(big.time, big.state, big.x).c < 0.8
    assert cox(big.time, big.state, big[["x"]]).coef[0] == pytest.approx(0.7, abs=0.03)


@pytest.mark.slow
def test_firth_on_tiny_cohorts_gives_an_estimate_or_one_sentence() -> None:
    rng = np.random.default_rng(0)
    for number in range(14):
        n, p = int(rng.integers(3, 14)), int(rng.integers(1, 6))
        values = rng.integers(0, 2, (n, p)) if number % 2 else rng.normal(size=(n, p)).round(1)
        columns = pd.DataFrame(values.astype(float), columns=[f"c{i}" for i in range(p)])
        time, event = rng.integers(1, 6, n).astype(float), (rng.random(n) < 0.4).astype(int)
        try:
            fit = firth(time, event, columns)
        except (NotEstimableError, UsageError):
            continue  # one sentence; never an error of a matrix
        assert np.isfinite(fit.coef).all()
        open_ends = [r.name for r in fit.rows if np.isnan(r.lower) or np.isnan(r.upper)]
        assert bool(open_ends) == any("no end of the profile" in w for w in fit.warnings)
