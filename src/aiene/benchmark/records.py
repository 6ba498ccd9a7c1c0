"""What is kept of each case and model: nodes and their matching, metrics of a label, and where they lie.

Also which way each metric is better.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import TypeAdapter

from aiene.errors import InputError, UsageError
from aiene.geometry.grid import Triple
from aiene.ingest.case import Case
from aiene.results.atomic import read_json

SizeClass = Literal["<10 mm", "10-15 mm", ">15 mm"]
SIZE_CLASSES: tuple[SizeClass, ...] = ("<10 mm", "10-15 mm", ">15 mm")
IOU_THRESHOLD = 0.3
"""A predicted node can be a true one where their intersection over union is at least this."""


@dataclass(frozen=True)
class NodeInfo:
    """One node of a case.

    Parameters
    ----------
    number : its value in the map of nodes.
    short_axis_mm : short axis in the axial slice of largest area, between pixel centres (`measure_axes`).
    confidence : of a predicted node, where the model gives one.
    """

    number: int
    volume_ml: float
    short_axis_mm: float
    size_class: SizeClass
    confidence: float | None = None


@dataclass(frozen=True)
class NodePair:
    """A true and a predicted node that overlap enough to be one."""

    truth: int
    predicted: int
    iou: float
    dice: float


@dataclass(frozen=True)
class NodeMatch:
    """The predicted nodes of one case against the true ones.

    Parameters
    ----------
    candidates : every pair whose IoU is at least the threshold.
    pairs : the one-to-one matching out of these.
    missed : true nodes without a partner.
    false : predicted nodes without a partner, second parts of a true node among them.
    splits : true nodes that two or more predicted nodes lie mostly within.
    merges : predicted nodes that two or more true nodes lie mostly within.
    lost : the model gave nothing for this case: every true node is missed, what is false is not known.
    """

    truth: tuple[NodeInfo, ...]
    predicted: tuple[NodeInfo, ...]
    candidates: tuple[NodePair, ...]
    pairs: tuple[NodePair, ...]
    missed: tuple[int, ...]
    false: tuple[int, ...]
    splits: tuple[int, ...]
    merges: tuple[int, ...]
    iou_threshold: float
    lost: bool = False


def lost_match(truth: tuple[NodeInfo, ...], iou_threshold: float) -> NodeMatch:
    """The match of a case for which a model gave nothing."""
    missed = tuple(node.number for node in truth)
    return NodeMatch(truth, (), (), (), missed, (), (), (), iou_threshold, lost=True)


def without_prediction(lost: int, cases: int) -> str:
    """Why a figure that needs what was predicted cannot be given; empty where every case has a prediction."""
    if not lost:
        return ""
    return f"{lost} of {cases} cases without a prediction, and what would be false there is not known"


def size_class(short_axis_mm: float) -> SizeClass:
    """Under 10 mm, from 10 to 15 mm (both included), over 15 mm."""
    if short_axis_mm < 10:
        return "<10 mm"
    return "10-15 mm" if short_axis_mm <= 15 else ">15 mm"


_DISTANCES = ("hd95_mm", "assd_mm")
_ERRORS = ("volume_error_ml", "volume_error_relative")
SEGMENTATION_METRICS = ("dice", "iou", *_DISTANCES, "surface_dice_1mm", "surface_dice_2mm", *_ERRORS)
LOST = "no prediction of this case"
_ABOUT_ZERO = ("volume_error_ml", "volume_error_relative", "volume_bias", "intercept")
_LOWER_WORDS = (
    *("hd95", "assd", "distance", "brier", "expected_error", "ece", "false", "missed", "splits", "merges"),
    *("seconds", "memory", "_bytes", "_mb", "_gb", "gib", "mib", "flops", "parameters", "size", "rank"),
    "failed",
)
_ABOUT_ONE = "slope"


@dataclass(frozen=True)
class LabelMetrics:
    """One label of one case, prediction against truth.

    Empty masks: where truth and prediction are both empty there is nothing to overlap, so Dice, IoU, surface
    Dice and the distances are None. Where only one is empty, Dice, IoU and surface Dice are 0 and the
    distances None, since they are infinite. What counts in a cohort is `cohort_value`, which is never None
    for one model and a number for another.

    Parameters
    ----------
    truth_voxels, predicted_voxels, shared_voxels : counts, from which the cohort's aggregate is made.
    truth_ml, predicted_ml : volumes.
    hd95_mm, assd_mm, surface_dice_1mm, surface_dice_2mm : by `surface_metrics`, where the conventions stand.
    volume_error_ml : predicted less truth.
    volume_error_relative : the same as a share of the truth's volume; None where that is 0.
    worst_mm : the image's diagonal between the centres of its corner voxels.
    reason : why something is None; empty where all is there.
    """

    label: int
    truth_voxels: int
    predicted_voxels: int
    shared_voxels: int
    truth_ml: float
    predicted_ml: float
    dice: float | None
    iou: float | None
    hd95_mm: float | None
    assd_mm: float | None
    surface_dice_1mm: float | None
    surface_dice_2mm: float | None
    volume_error_ml: float
    volume_error_relative: float | None
    worst_mm: float
    reason: str = ""

    def cohort_value(self, name: str) -> float | None:
        """A metric for means, tests and ranks over a cohort; None only where the truth alone forbids one.

        Both masks empty is right (Maier-Hein et al., Metrics Reloaded, Nat. Methods 21, 2024): overlaps are 1
        and distances 0. Where one of the two is empty a distance is the image's diagonal, the worst that can
        be. Volume errors are taken by their size, so that errors of two cases do not cancel.

        Raises
        ------
        UsageError : a name that is not in `SEGMENTATION_METRICS`.
        """
        if name not in SEGMENTATION_METRICS:
            raise UsageError(
                f"{name} is not a segmentation metric; use one of {', '.join(SEGMENTATION_METRICS)}."
            )
        value: float | None = getattr(self, name)
        if name in _ERRORS:
            return None if value is None else abs(value)
        if self.dice is None:  # absent in both
            return 0.0 if name in _DISTANCES else 1.0
        return self.worst_mm if value is None else value


def lost_metrics(
    label: int, voxels: int, voxel_ml: float, image_ml: float, diagonal_mm: float
) -> LabelMetrics:
    """A label of a case for which a model gave nothing: the worst that any prediction could have got.

    Parameters
    ----------
    voxels : of the label in the truth.
    image_ml : volume of the whole image, to which the largest error of volume belongs.
    diagonal_mm : of the image; see `LabelMetrics.worst_mm`.
    """
    truth_ml = voxels * voxel_ml
    error = max(truth_ml, image_ml - truth_ml)
    return LabelMetrics(
        label=label,
        truth_voxels=voxels,
        predicted_voxels=0,
        shared_voxels=0,
        truth_ml=truth_ml,
        predicted_ml=0.0,
        dice=0.0,
        iou=0.0,
        hd95_mm=diagonal_mm,
        assd_mm=diagonal_mm,
        surface_dice_1mm=0.0,
        surface_dice_2mm=0.0,
        volume_error_ml=error,
        volume_error_relative=error / truth_ml if voxels else None,
        worst_mm=diagonal_mm,
        reason=LOST,
    )


@dataclass(frozen=True)
class CaseMetrics:
    """The metrics of each label asked for, and the nodes' matching."""

    labels: tuple[LabelMetrics, ...]
    nodes: NodeMatch


def higher_is_better(metric: str) -> bool | None:
    """Whether a larger value of a metric is better.

    Parameters
    ----------
    metric : its name, also with what it is of in front or behind: `dice`, `gtvn_hd95_mm`, `wall_seconds`.

    Returns
    -------
    False for distances, errors, counts of mistakes, time and memory; None where neither way is: volume errors
    and calibration intercepts are best near 0, calibration slopes near 1. Otherwise True.
    """
    name = metric.lower()
    if any(word in name for word in (*_ABOUT_ZERO, _ABOUT_ONE)):
        return None
    return not any(word in name for word in _LOWER_WORDS)


def goodness(metric: str, value: float) -> float:
    """A number that is larger the better the value of a metric is, to sort by."""
    direction = higher_is_better(metric)
    if direction is None:
        best = 1.0 if _ABOUT_ONE in metric.lower() else 0.0
        return -abs(value - best)
    return value if direction else -value


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
