"""Image encoders and classifiers as comparators: frozen features of the nodes.

SwinV2, ViT, DINOv2 and CLIP's vision tower come from the transformers library, others from timm (an
architecture's name with weights beside it, or a folder in timm's hub layout). The features of a node are
those of its axial, coronal and sagittal patch, one after the other. A probe is fitted on them afterwards,
over all cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.benchmark.comparators import hub
from aiene.benchmark.comparators.protocol import (
    Adapter,
    Answer,
    CaseInput,
    Entrant,
    ModelFacts,
    Request,
)
from aiene.benchmark.comparators.slice_segmenters import PictureScale, channels_of, picture_size
from aiene.benchmark.config import BenchmarkConfig
from aiene.benchmark.metrics.nodes import values_of
from aiene.benchmark.records import CaseRecord, TruthRecord, model_files, read_record, to_json
from aiene.device import resolve_device
from aiene.errors import ModelError, need
from aiene.geometry.grid import Volume
from aiene.ingest.read import read_case
from aiene.results.atomic import write_json

FEATURE_THRESHOLD = 0.5
_PIXELS = 224
_SAID = {
    "linear": "logistic regression on its frozen features, in cross-validation by patient",
    "knn": "k nearest neighbours on its frozen features, in cross-validation by patient",
}

OUTSIDE_HU = -1024.0
_PLANES = ((1, 2), (0, 2), (0, 1))
"""Which patient axes (z up, y back, x left) are rows and columns: axial, coronal, sagittal."""

PREFIX = "timm:"


class EncoderComparator:
    """A network that turns pictures (n, channels, size, size) into features (n, d)."""

    def __init__(
        self,
        encode: Callable[[Any], Any],
        facts: ModelFacts,
        request: Request,
        scale: PictureScale,
        pixels: int,
    ) -> None:
        self._encode, self.facts, self._entry = encode, facts, request.entry
        self._scale, self._pixels = scale, pixels
        self._device = resolve_device(request.device)

    def load(self, case: CaseInput) -> tuple[Volume, Volume]:
        """Read the CT; with it go the truth's nodes."""
        return read_case(case.case).volume, case.truth_nodes

    def preprocess(self, loaded: tuple[Volume, Volume]) -> dict[int, Any]:
        """The pictures of each of the truth's nodes."""
        patches = node_patches(*loaded, side_mm=self._entry.patch_mm, pixels=self._pixels)
        return {value: self._scale.pictures(hu) for value, hu in patches.items()}

    def infer(self, prepared: dict[int, Any]) -> dict[int, npt.NDArray[np.float32]]:
        """Features of each node, node by node."""
        import torch

        with torch.inference_mode():
            return {
                value: self._encode(pictures.to(self._device)).float().cpu().numpy().ravel()
                for value, pictures in prepared.items()
            }

    def answer(self, inferred: dict[int, npt.NDArray[np.float32]]) -> Answer:
        """The features, but for those that are not finite."""
        bad = sorted(value for value, f in inferred.items() if not np.isfinite(f).all())
        warnings = tuple(f"GTVn_{value:02d}: the features are not finite numbers" for value in bad)
        return Answer(features={v: f for v, f in inferred.items() if v not in bad}, warnings=warnings)


def open_encoder(request: Request) -> EncoderComparator:
    """The model of a folder; of a two-tower model (CLIP, SigLIP) the vision tower.

    Raises
    ------
    ModelError : it cannot be loaded, or takes no pictures.
    """
    found = hub.pretrained("AutoModel", request, may_lack=("pooler", "position_ids"))
    model, content = found.model, found.preprocessor
    tower = getattr(model, "vision_model", model)
    if getattr(tower, "main_input_name", "pixel_values") != "pixel_values":
        raise ModelError(found.folder, "it takes no pictures", "give an image encoder or classifier")
    tower = tower.to(resolve_device(request.device)).eval()
    vision = getattr(model.config, "vision_config", model.config)
    scale = PictureScale.from_config(request.entry.window_hu, content, channels_of(vision))
    pixels = request.entry.input_size or picture_size(content, vision) or _PIXELS
    trusted = not any("pooler" in name for name in found.missing)

    def encode(pictures: Any) -> Any:
        return pooled(tower(pixel_values=pictures), vision, trust_pooler=trusted)

    _try(encode, found.folder, (1, channels_of(vision), pixels, pixels), request.device)
    facts = hub.weights_facts("encoder", found.files, [tower], **_known(request))
    return EncoderComparator(encode, facts, request, scale, pixels)


def _known(request: Request) -> dict[str, Any]:
    """What is known of every encoder."""
    said = _SAID[request.entry.probe], "judges the nodes of the ground truth; it does not find nodes"
    return {"classifies": True, "features": True, "ene_threshold": FEATURE_THRESHOLD, "said": said}


def pooled(output: Any, config: Any, *, trust_pooler: bool) -> Any:
    """One vector for a picture: the model's own pooling where it was trained, else the class token or mean.

    The class token is taken where the model has one (ViT, DINOv2, CLIP); a feature map is averaged.
    """
    own = getattr(output, "pooler_output", None)
    if own is not None and trust_pooler:
        return own.flatten(1)
    hidden = output.last_hidden_state
    if hidden.ndim == 4:
        return hidden.mean(dim=(2, 3))
    return hidden.mean(dim=1) if "swin" in str(config.model_type) else hidden[:, 0]


def _try(encode: Callable[[Any], Any], folder: Path, shape: tuple[int, ...], device: str) -> None:
    """One empty picture, so that a size that does not fit is told once and not case by case."""
    import torch

    try:
        with torch.inference_mode():
            encode(torch.zeros(shape, device=resolve_device(device)))
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        said = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        problem = f"it cannot take pictures of {shape[-1]} x {shape[-1]} ({said})"
        raise ModelError(folder, problem, "set `input_size` to what it was trained with") from error


# Patches of a node


def node_patches(
    ct: Volume, node_map: Volume, *, side_mm: float, pixels: int
) -> dict[int, npt.NDArray[np.float32]]:
    """Axial, coronal and sagittal patches (3, pixels, pixels) in HU of each node, by its value.

    The planes are the patient's own, whatever the grid's directions; the middle is the centroid of the
    node's mask. Linear interpolation; air outside the CT.

    Parameters
    ----------
    node_map : each value above 0 a node, on the CT's grid.
    side_mm : of a patch.
    pixels : along its side.
    """
    steps = (np.arange(pixels) - (pixels - 1) / 2) * (side_mm / pixels)
    first, second = np.meshgrid(steps, steps, indexing="ij")
    result = {}
    for value in values_of(node_map.array):
        middle = node_map.grid.points(np.argwhere(node_map.array == value).mean(axis=0))
        patches = []
        for rows, columns in _PLANES:
            offset = np.zeros((pixels, pixels, 3))  # x, y, z of the patient
            offset[..., 2 - rows] = -first if rows == 0 else first  # the head is up
            offset[..., 2 - columns] = second
            at = ct.grid.indices(middle + offset)
            patches.append(
                ndimage.map_coordinates(
                    ct.array, at.transpose(2, 0, 1), np.float32, order=1, mode="constant", cval=OUTSIDE_HU
                )
            )
        result[value] = np.stack(patches)
    return result


# timm


def open_timm(request: Request) -> EncoderComparator:
    """The encoder of a folder with timm's `config.json` and safetensors, or of `timm:ID`, a hub id.

    Raises
    ------
    ModelError : no such architecture, or weights that do not fit it.
    MissingExtraError : timm is not installed.
    """
    timm = need("timm", extra="timm", purpose="A timm model")
    source = request.entry.source.removeprefix(PREFIX)
    folder = request.folder or hub.model_folder(source, request.entry.revision)
    config = hub.read_json(folder, hub.CONFIG)
    architecture = str(config.get("architecture", ""))
    if not timm.is_model(architecture):
        raise ModelError(folder, f"timm has no architecture {architecture!r}", "check its config.json")
    files = hub.weight_files(folder)
    model = timm.create_model(architecture, pretrained=False, num_classes=0)
    _fill(model, files[0], folder.name)
    data = {**config.get("pretrained_cfg", {}), **config.get("pretrained_config", {})}
    channels, pixels, _ = data.get("input_size", (3, 224, 224))
    content = {"image_mean": data.get("mean"), "image_std": data.get("std")}
    model = model.eval().to(resolve_device(request.device))
    return EncoderComparator(
        model,
        hub.weights_facts("timm", files, [model], **_known(request)),
        request,
        PictureScale.from_config(request.entry.window_hu, content, int(channels)),
        request.entry.input_size or int(pixels),
    )


def _fill(model: Any, file: Any, name: str) -> None:
    """Load the weights; those of a head, which the features do without, are passed over."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        known = set(model.state_dict())
        model.load_state_dict({key: value for key, value in load_file(file).items() if key in known})
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            name, "its weights do not fit its architecture", "download the model again"
        ) from error


# The probe: a simple classifier, fitted on other patients than those that it judges


FOLDS = 5


@dataclass(frozen=True)
class ProbeResult:
    """Out-of-fold probabilities.

    Parameters
    ----------
    probabilities : one a node; None where there are none, for `reason`.
    """

    probabilities: tuple[float, ...] | None
    reason: str = ""


def cross_validated(
    features: npt.NDArray[np.float32],
    labels: Sequence[int],
    patients: Sequence[str],
    *,
    probe: Literal["linear", "knn"] = "linear",
    neighbours: int = 5,
    seed: int = 0,
) -> ProbeResult:
    """Probability of ENE of each node, from a probe that has seen none of its patient's nodes.

    The patients are dealt into five parts (fewer where there are fewer patients), about evenly by class.
    `linear`: standardised features, L2 logistic regression (C = 1), weighted for the classes' sizes. `knn`:
    standardised, share of ENE among the nearest neighbours by distance, weighted by its inverse.

    Parameters
    ----------
    features : (nodes, d), finite.
    labels : 0 or 1.
    patients : whose node it is.

    Raises
    ------
    MissingExtraError : scikit-learn is not installed.
    """
    truth, groups = np.array(labels, dtype=np.int64), np.array(patients, dtype=str)
    reason = _hindrance(truth, groups)
    if reason:
        return ProbeResult(None, reason)
    selection = need("sklearn.model_selection", extra="benchmark", purpose="A probe on frozen features")
    parts = min(FOLDS, *(len(set(groups[truth == one].tolist())) for one in (0, 1)))
    folds = selection.StratifiedGroupKFold(max(2, parts), shuffle=True, random_state=seed)
    odds = np.full(len(truth), np.nan)
    for known, asked in folds.split(features, truth, groups):
        if len(set(truth[known].tolist())) < 2:
            return ProbeResult(None, "too few patients with and without ENE to leave some out")
        model = _model(probe, min(neighbours, len(known)))
        model.fit(features[known], truth[known])
        odds[asked] = model.predict_proba(features[asked])[:, 1]
    return ProbeResult(tuple(float(p) for p in odds))


def _hindrance(truth: npt.NDArray[np.int64], groups: npt.NDArray[np.str_]) -> str:
    if len(truth) == 0:
        return "no node has both features and an ENE label"
    if len(set(truth.tolist())) < 2:
        return "all labelled nodes are of one class, so nothing can be learned"
    if min(len(set(groups[truth == one].tolist())) for one in (0, 1)) < 2:
        return "nodes of one class come from a single patient, so no patient can be left out"
    return ""


def _model(probe: Literal["linear", "knn"], neighbours: int) -> Any:
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if probe == "knn":
        last: Any = KNeighborsClassifier(neighbours, weights="distance")
    else:
        last = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2000)
    return make_pipeline(StandardScaler(), last)


def judge_features(
    config: BenchmarkConfig, out: Path, entrant: Entrant, truths: Sequence[TruthRecord]
) -> str:
    """Fit the probe over all cases and put its out-of-fold probabilities into their records.

    Returns
    -------
    Why there are none; empty where there are.
    """
    need("sklearn", extra="benchmark", purpose="A probe on frozen features")
    rows, features = [], []
    for truth in truths:
        file = model_files(out, entrant.key, truth.case_id)[3]
        if not file.is_file():
            continue
        with np.load(file, allow_pickle=False) as kept:
            for node in truth.nodes:
                if node.ene is not None and str(node.value) in kept.files:
                    rows.append((truth.case_id, truth.patient_id, node.value, node.ene))
                    features.append(kept[str(node.value)])
    entry = entrant.request.entry if entrant.request is not None else None
    if not any(node.ene is not None for truth in truths for node in truth.nodes):
        return "no node has an ENE label; give --ene-csv"
    if entry is None or not rows:
        return "the model gave no finite features for a labelled node; see the warnings of its cases"
    result = cross_validated(
        np.stack(features),
        [ene for *_, ene in rows],
        [who for _, who, *_ in rows],
        probe=entry.probe,
        neighbours=entry.neighbours,
        seed=config.seed,
    )
    odds: dict[tuple[str, int], float] = {}
    if result.probabilities is not None:
        odds = {(case, value): p for (case, _, value, _), p in zip(rows, result.probabilities, strict=True)}
    for truth in truths:
        file = model_files(out, entrant.key, truth.case_id)[0]
        record = read_record(CaseRecord, file)
        if record is None or record.status != "ok":
            continue
        nodes = [replace(n, ene_on_truth=odds.get((truth.case_id, n.value))) for n in record.truth_nodes]
        write_json(file, to_json(replace(record, truth_nodes=tuple(nodes))))
    return result.reason


ADAPTERS = (
    Adapter("encoder", "image encoder with probe", open_encoder, from_hub=True),
    Adapter(
        "timm",
        "image encoder of timm",
        open_timm,
        from_hub=True,
        takes_config=lambda config: "architecture" in config and "model_type" not in config,
    ),
)
