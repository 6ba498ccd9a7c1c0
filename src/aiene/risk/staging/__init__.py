"""AJCC/UICC editions 7 and 8, version 9, and RTOG-0129, as numbered decision tables."""

from aiene.risk.staging.decision import Decision
from aiene.risk.staging.patient import Inputs, Staged, StagingOptions, stage_patient
from aiene.risk.staging.rtog import rtog0129
from aiene.risk.staging.stage import STAGING_COLUMNS, stage_table

__all__ = [
    "STAGING_COLUMNS",
    "Decision",
    "Inputs",
    "Staged",
    "StagingOptions",
    "rtog0129",
    "stage_patient",
    "stage_table",
]
