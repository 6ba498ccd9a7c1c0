"""Statistics of survival with and without competing events, on arrays: no files, no tables of patients.

Every function says in its docstring which input it refuses (`UsageError`) and what the data may be too poor
for (`NotEstimableError`, whose text is the sentence to show). Results are frozen records; `to_json` makes
them JSON. The same seed gives the same bits.
"""

from aiene.stats.bootstrap import Bootstrap, bootstrap
from aiene.stats.brier import Brier, IntegratedBrier, brier_score, integrated_brier
from aiene.stats.calibration import Calibration, CalibrationRow, calibration
from aiene.stats.concordance import Concordance, Concordances, concordance, harrell_c, uno_c
from aiene.stats.cox import cause_specific_cox, cox
from aiene.stats.cox_model import (
    CoxFit,
    CoxModel,
    LikelihoodRatio,
    Wald,
    fit_cox,
    nested_lrt,
    term_test,
)
from aiene.stats.cumulative_incidence import (
    IncidenceCurve,
    cumulative_incidence,
    cumulative_incidence_by_group,
)
from aiene.stats.decision_curve import DecisionCurve, NetBenefit, decision_curve
from aiene.stats.fine_gray import FineGrayFit, fine_gray
from aiene.stats.imputation import (
    NEVER_IMPUTED,
    Imputed,
    Pooled,
    PooledCoefficient,
    impute,
    rubin,
    rubin_estimates,
)
from aiene.stats.internal_validation import (
    CrossValidated,
    Optimism,
    OptimismRow,
    Permutation,
    cross_validate,
    optimism,
    permutation_control,
)
from aiene.stats.penalised_cox import find_separation, firth, ridge
from aiene.stats.proportional_hazards import (
    PHRow,
    ProportionalHazards,
    Schoenfeld,
    proportional_hazards,
    schoenfeld,
)
from aiene.stats.reclassification import Cell, Groome, Reclassification, groome, reclassification
from aiene.stats.records import (
    Coefficient,
    Difference,
    HorizonEstimate,
    Interval,
    NotEstimableError,
    Pair,
    to_json,
)
from aiene.stats.sample_size import Information, count_distribution, information, probability_at_least
from aiene.stats.splines import count_columns, restricted_cubic_spline, spline_knots
from aiene.stats.survival_curves import (
    FollowUp,
    Restricted,
    RestrictedDifference,
    SurvivalCurve,
    follow_up,
    kaplan_meier,
    kaplan_meier_by_group,
    nelson_aalen,
    rmst,
    rmst_difference,
)
from aiene.stats.tests import (
    Gray,
    GroupCount,
    LogRank,
    Trend,
    gray_pairwise,
    gray_test,
    holm,
    log_rank,
    log_rank_pairwise,
    log_rank_trend,
)
from aiene.stats.time_auc import TimeAuc, TimeAucs, time_dependent_auc, time_dependent_aucs

__all__ = [
    "NEVER_IMPUTED",
    "Bootstrap",
    "Brier",
    "Calibration",
    "CalibrationRow",
    "Cell",
    "Coefficient",
    "Concordance",
    "Concordances",
    "CoxFit",
    "CoxModel",
    "CrossValidated",
    "DecisionCurve",
    "Difference",
    "FineGrayFit",
    "FollowUp",
    "Gray",
    "Groome",
    "GroupCount",
    "HorizonEstimate",
    "Imputed",
    "IncidenceCurve",
    "Information",
    "IntegratedBrier",
    "Interval",
    "LikelihoodRatio",
    "LogRank",
    "NetBenefit",
    "NotEstimableError",
    "Optimism",
    "OptimismRow",
    "PHRow",
    "Pair",
    "Permutation",
    "Pooled",
    "PooledCoefficient",
    "ProportionalHazards",
    "Reclassification",
    "Restricted",
    "RestrictedDifference",
    "Schoenfeld",
    "SurvivalCurve",
    "TimeAuc",
    "TimeAucs",
    "Trend",
    "Wald",
    "bootstrap",
    "brier_score",
    "calibration",
    "cause_specific_cox",
    "concordance",
    "count_columns",
    "count_distribution",
    "cox",
    "cross_validate",
    "cumulative_incidence",
    "cumulative_incidence_by_group",
    "decision_curve",
    "find_separation",
    "fine_gray",
    "firth",
    "fit_cox",
    "follow_up",
    "gray_pairwise",
    "gray_test",
    "groome",
    "harrell_c",
    "holm",
    "impute",
    "information",
    "integrated_brier",
    "kaplan_meier",
    "kaplan_meier_by_group",
    "log_rank",
    "log_rank_pairwise",
    "log_rank_trend",
    "nelson_aalen",
    "nested_lrt",
    "optimism",
    "permutation_control",
    "probability_at_least",
    "proportional_hazards",
    "reclassification",
    "restricted_cubic_spline",
    "ridge",
    "rmst",
    "rmst_difference",
    "rubin",
    "rubin_estimates",
    "schoenfeld",
    "spline_knots",
    "term_test",
    "time_dependent_auc",
    "time_dependent_aucs",
    "to_json",
    "uno_c",
]
