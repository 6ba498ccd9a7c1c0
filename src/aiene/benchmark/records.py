"""What is kept of each case and model, and how it is found again in the folder of a benchmark."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from aiene.benchmark.metrics.records import LabelMetrics, NodeMatch
from aiene.errors import InputError
from aiene.geometry.grid import Triple
from aiene.ingest.case import Case
from aiene.results.atomic import read_json

FORMAT = 2
WORK = "work"


@dataclass(frozen=True)
class TruthNode:
    """A node of the ground truth, and what a model says of it.

    Parameters
    ----------
    value : in the truth's node map; `name` is `GTVn_` and this number.
    ene : 0 or 1; None where nobody says.
    found_as : value of the found node that was matched to it; None: missed.
    overlap : intersection over union with that.
    ene_on_truth : probability of the classifier on this very mask.
    ene_end_to_end : probability of the found node.
    short_axis_mm : in the axial slice of largest area, as of `NodeInfo`.
    """

    value: int
    name: str
    volume_ml: float
    centroid_lps_mm: Triple
    ene: int | None = None
    found_as: int | None = None
    overlap: float | None = None
    ene_on_truth: float | None = None
    ene_end_to_end: float | None = None
    short_axis_mm: float = 0.0


@dataclass(frozen=True)
class FoundNode:
    """A node that a model found.

    Parameters
    ----------
    value : in the model's node map.
    confidence, ene : 0 to 1; None where the model gives none.
    matched : value of the truth's node; None: a false node.
    """

    value: int
    volume_ml: float
    centroid_lps_mm: Triple
    confidence: float | None = None
    ene: float | None = None
    matched: int | None = None


@dataclass(frozen=True)
class TruthRecord:
    """The ground truth of one case.

    Parameters
    ----------
    identity : what it was made from and how.
    content_sha256 : of the voxels and geometry of image, labels and nodes, and of the ENE labels, for the
        data set's hash.
    labels : voxels of each label.
    diagonal_mm : of the image, the distance that counts where a label was not found at all.
    image_ml : of the image, the error of volume that counts where there is no prediction.
    ene_unmatched : rows of the ENE file that belong to no node, as (row, reason).
    warnings : what the user should look at.
    """

    case_id: str
    patient_id: str
    status: Literal["ok", "failed"]
    reason: str = ""
    identity: str = ""
    content_sha256: str = ""
    voxel_ml: float = 0.0
    diagonal_mm: float = 0.0
    image_ml: float = 0.0
    voxels: dict[str, int] = field(default_factory=dict)
    nodes: tuple[TruthNode, ...] = ()
    ene_matched: int = 0
    ene_unmatched: tuple[tuple[int, str], ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseRecord:
    """What one model made of one case.

    Parameters
    ----------
    key : the model's name as a file name.
    identity : what it was made from and how.
    answer_sha256 : of what the model said (voxels, geometry, probabilities), however it was stored.
    segmentation : by label; None from a model that does not segment.
    matching : found nodes against the truth's; None likewise.
    seconds, cpu_seconds : by step: load, preprocess, inference, postprocess.
    flops : of one inference, where they were counted.
    """

    model: str
    key: str
    kind: str
    case_id: str
    patient_id: str
    status: Literal["ok", "failed"]
    reason: str = ""
    identity: str = ""
    warnings: tuple[str, ...] = ()
    answer_sha256: str = ""
    segmentation: dict[str, LabelMetrics] | None = None
    matching: NodeMatch | None = None
    truth_nodes: tuple[TruthNode, ...] = ()
    found_nodes: tuple[FoundNode, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    cpu_seconds: dict[str, float] = field(default_factory=dict)
    inference_repeats: int = 1
    peak_rss_mib: float | None = None
    peak_gpu_mib: float | None = None
    flops: int | None = None


def key_of(name: str) -> str:
    """A model's name as a file name."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "model"


Record = TypeVar("Record", TruthRecord, CaseRecord)


def to_json(record: TruthRecord | CaseRecord) -> dict[str, Any]:
    """JSON values only; `from_json` takes them back."""
    return {"format": FORMAT, **asdict(record)}


def from_json(kind: type[Record], content: Mapping[str, Any]) -> Record:
    """The record of a `truth/<case_id>.json` or `models/<key>/<case_id>.json`.

    Raises
    ------
    ValueError : the content is not of this form, or of another version.
    """
    if content.get("format") != FORMAT:
        raise ValueError("a record of another version")
    record: Record = _READERS[kind].validate_python({k: v for k, v in content.items() if k != "format"})
    return record


_READERS: dict[Any, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (TruthRecord, CaseRecord)}


def read_record(kind: type[Record], file: Path) -> Record | None:
    """The record of a file; None where it is not there or of another form."""
    content = read_json(file)
    try:
        return None if content is None else from_json(kind, content)
    except ValueError:
        return None


def done_record(kind: type[Record], file: Path, identity: str) -> Record | None:
    """The record of a file if it is of this identity and not a failure; else None."""
    record = read_record(kind, file)
    done = record is not None and record.status == "ok" and record.identity == identity
    return record if done else None


def newest_summary(folder: Path) -> dict[str, Any]:
    """The newest `benchmark_summary_<time>.json` of a folder.

    Raises
    ------
    InputError : there is none, or it cannot be read.
    """
    pattern = "benchmark_summary_*.json"
    files = sorted(folder.glob(pattern))
    if not files:
        raise InputError(folder, f"no {pattern} in it", "name the folder of a benchmark")
    content = read_json(files[-1])
    if content is None:
        raise InputError(files[-1], "it cannot be read as JSON", "run the benchmark again")
    return content


def image_of(folder: Path, case_id: str) -> Path | None:
    """Where the CT of a case lies, a file or a folder; None where it no longer exists."""
    listed = (read_json(folder / WORK / "cases.json") or {}).get("cases", [])
    image = next((Path(case["image"]) for case in listed if case["case_id"] == case_id), None)
    return image if image is not None and image.exists() else None


def truth_files(folder: Path, case_id: str) -> tuple[Path, Path, Path]:
    """Record, labels and nodes of a case's ground truth."""
    at = folder / WORK / "truth"
    return at / f"{case_id}.json", at / f"{case_id}.labels.nii.gz", at / f"{case_id}.nodes.nii.gz"


def model_files(folder: Path, key: str, case_id: str) -> tuple[Path, Path, Path, Path]:
    """Record, labels, nodes and features of a case and model."""
    at = folder / WORK / "models" / key
    endings = ("json", "labels.nii.gz", "nodes.nii.gz", "features.npz")
    record, labels, nodes, features = (at / f"{case_id}.{ending}" for ending in endings)
    return record, labels, nodes, features


@dataclass(frozen=True)
class Pair:
    """One case with its ground truth; the CT is found, but not read."""

    case_id: str
    image: Case
    mask: Path


@dataclass(frozen=True)
class Refused:
    """A case that cannot be paired, and one sentence why."""

    case_id: str
    reason: str


@dataclass(frozen=True)
class Pairing:
    """What two folders hold together.

    Parameters
    ----------
    pairs : by case id in byte order.
    images_without_mask, masks_without_image : case ids that stand alone.
    refused : cases with more than one image or mask, and files that are not read.
    notes : what was skipped.
    """

    pairs: tuple[Pair, ...]
    images_without_mask: tuple[str, ...]
    masks_without_image: tuple[str, ...]
    refused: tuple[Refused, ...]
    notes: tuple[str, ...] = ()
