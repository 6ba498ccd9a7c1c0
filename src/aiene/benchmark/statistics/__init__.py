"""What a difference is worth: intervals, tests and ranks."""

from aiene.benchmark.estimate import Estimate
from aiene.benchmark.statistics.bootstrap import Statistic, bootstrap, mean, median, ratio
from aiene.benchmark.statistics.curves import clustered_auc_difference
from aiene.benchmark.statistics.delong import DelongTest, delong_auc, delong_test
from aiene.benchmark.statistics.holm import holm
from aiene.benchmark.statistics.paired import (
    Comparison,
    Paired,
    SuperiorityTable,
    compare_with_reference,
    paired,
    sign_flip_p,
    superiority_table,
)
from aiene.benchmark.statistics.ranking import (
    CriticalDifference,
    RankedModel,
    Ranking,
    critical_difference,
    ranking,
)
from aiene.benchmark.statistics.summary import Summary, summarise

__all__ = [
    "Comparison",
    "CriticalDifference",
    "DelongTest",
    "Estimate",
    "Paired",
    "RankedModel",
    "Ranking",
    "Statistic",
    "Summary",
    "SuperiorityTable",
    "bootstrap",
    "clustered_auc_difference",
    "compare_with_reference",
    "critical_difference",
    "delong_auc",
    "delong_test",
    "holm",
    "mean",
    "median",
    "paired",
    "ranking",
    "ratio",
    "sign_flip_p",
    "summarise",
    "superiority_table",
]
