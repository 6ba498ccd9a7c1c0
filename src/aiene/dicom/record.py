"""What an export of one case is made from."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from aiene.dicom.source import SourceSeries
from aiene.geometry import Volume
from aiene.results.records import CaseResult


@dataclass(frozen=True)
class Maker:
    """What made the result: software, bundle, settings, and when.

    Parameters
    ----------
    software_version : of this package at the time of the run.
    bundle_name, bundle_version, bundle_sha256 : the model bundle.
    notice : the bundle's own sentence, to stand wherever its results are shown.
    ene_threshold : a node counts as ENE where its probability is over this.
    own_masks : the user's masks took the place of the segmenter.
    started : when the run began (UTC); the date of every exported object, so that an export repeats.
    """

    software_version: str
    bundle_name: str
    bundle_version: str
    bundle_sha256: str
    notice: str
    ene_threshold: float
    own_masks: bool
    started: datetime


@dataclass(frozen=True, eq=False)
class ExportCase:
    """One case of a run, with its source series found again.

    Parameters
    ----------
    result : the record of `case.json`; status `ok` or `no_nodes`.
    nodes : uint16 node map, value k for `GTVn_k`, on the run's native grid (see `source.on_source`).
    labels : uint8 label map there: 1 GTVp, 2 GTVn.
    source : the headers of the source slices.
    maker : what made the result.
    """

    result: CaseResult
    nodes: Volume
    labels: Volume
    source: SourceSeries
    maker: Maker
