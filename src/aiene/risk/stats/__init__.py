"""Statistics of survival with and without competing events, on arrays: no files, no tables of patients.

Every function says in its docstring which input it refuses (`UsageError`) and what the data may be too poor
for (`NotEstimableError`, whose text is the sentence to show). Results are frozen records; `to_json` makes
them JSON. The same seed gives the same bits.
"""

from aiene.risk.stats.brier import Brier, IntegratedBrier, brier_score, integrated_brier
from aiene.risk.stats.calibration import Calibration, CalibrationRow, calibration
from aiene.risk.stats.concordance import Concordance, harrell_c, uno_c
from aiene.risk.stats.cox import cause_specific_cox, cox, cox_univariable
from aiene.risk.stats.cox_fast import CoxModel, fit_cox
from aiene.risk.stats.decision import DecisionCurve, NetBenefit, decision_curve
from aiene.risk.stats.discrimination import Concordances, concordance
from aiene.risk.stats.errors import NotEstimableError
from aiene.risk.stats.fine_gray import FineGrayFit, fine_gray
from aiene.risk.stats.firth import firth, ridge
from aiene.risk.stats.fits import CoxFit, LikelihoodRatio, Wald, lrt_against_null, nested_lrt, term_test
from aiene.risk.stats.gray import Gray, gray_pairwise, gray_test
from aiene.risk.stats.groome import Groome, groome
from aiene.risk.stats.hazards import PHRow, ProportionalHazards, Schoenfeld, proportional_hazards, schoenfeld
from aiene.risk.stats.imputation import NEVER_IMPUTED, Imputed, impute
from aiene.risk.stats.incidence import IncidenceCurve, cumulative_incidence, cumulative_incidence_by_group
from aiene.risk.stats.information import Information, count_distribution, information, probability_at_least
from aiene.risk.stats.kaplan_meier import (
    FollowUp,
    SurvivalCurve,
    follow_up,
    kaplan_meier,
    kaplan_meier_by_group,
)
from aiene.risk.stats.life_table import nelson_aalen
from aiene.risk.stats.log_rank import (
    GroupCount,
    LogRank,
    Trend,
    holm,
    log_rank,
    log_rank_pairwise,
    log_rank_trend,
)
from aiene.risk.stats.pooling import Pooled, PooledCoefficient, rubin, rubin_estimates
from aiene.risk.stats.reclassification import Cell, Reclassification, reclassification
from aiene.risk.stats.records import Coefficient, Difference, Estimate, Interval, Pair, to_json
from aiene.risk.stats.resampling import Bootstrap, bootstrap
from aiene.risk.stats.rmst import Restricted, RestrictedDifference, rmst, rmst_difference
from aiene.risk.stats.separation import find_separation
from aiene.risk.stats.splines import count_columns, restricted_cubic_spline, spline_knots
from aiene.risk.stats.time_auc import TimeAuc, TimeAucs, time_dependent_auc, time_dependent_aucs
from aiene.risk.stats.validation import (
    CrossValidated,
    Optimism,
    OptimismRow,
    Permutation,
    cross_validate,
    optimism,
    permutation_control,
)

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
    "Estimate",
    "FineGrayFit",
    "FollowUp",
    "Gray",
    "Groome",
    "GroupCount",
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
    "cox_univariable",
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
    "lrt_against_null",
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
