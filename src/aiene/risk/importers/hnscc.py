"""HNSCC of MD Anderson (The Cancer Imaging Archive): either of its two tables, told apart by headers."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from aiene.risk.importers import hnscc_mda, hnscc_opc
from aiene.risk.importers.options import ImportOptions
from aiene.risk.importers.source import Source
from aiene.risk.table.files import read_raw

TITLE = "HNSCC: Radiomics_Outcome_Prediction_in_OPC (edition 7, days) or HNSCC-MDA-Data (days and months)"


def read(path: Path, options: ImportOptions) -> pd.DataFrame:
    """The raw table."""
    return read_raw(path, sheet=options.sheet)


def build(source: Source, options: ImportOptions) -> pd.DataFrame:
    """The canonical columns of whichever table it is.

    Raises
    ------
    InputError : it is neither, or a code is unknown.
    """
    if source.find(hnscc_opc.PATIENT) is not None:
        return hnscc_opc.build(source, options)
    if source.find(hnscc_mda.PATIENT) is not None:
        return hnscc_mda.build(source, options)
    problem = f'it has neither the column "{hnscc_opc.PATIENT}" nor "{hnscc_mda.PATIENT}"'
    raise source.findings.refuse(problem, "give one of the two tables of the collection HNSCC")
