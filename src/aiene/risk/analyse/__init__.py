"""The whole analysis of a cohort: does the number of AI-ENE nodes say more than the old groups do?

settings.py     what a user may decide
cohort.py       who is analysed, and who is not and why
grouping.py     marker classes, old groups, combined groups
design.py       how covariates are coded
describe.py     flow, table 1, missing data
survival.py, competing.py    curves and their tests
regression.py, marker.py, hazards.py    Cox, Fine-Gray, forms of the count, interaction, assumptions
contest.py, added.py    old system against old + AI-ENE
derive/         cut-offs from the data, and what they are worth on other patients
thresholds.py   what the ENE threshold changes
figures/        numbers -> drawings
report/         an analysis -> files
run.py          all of it in one call
"""

from aiene.parallel import Progress
from aiene.risk.analyse.records import Analysis
from aiene.risk.analyse.run import analyse
from aiene.risk.analyse.settings import ENDPOINTS, AnalysisSettings, parse_endpoints

__all__ = ["ENDPOINTS", "Analysis", "AnalysisSettings", "Progress", "analyse", "parse_endpoints"]
