"""Segmentation metrics: label by label, of a whole case with its nodes, and aggregated over a cohort.

Distances are between the surfaces of two masks. Libraries do not agree on what a surface is and how a 95th
percentile is taken; ours, and where each is from:

- 95 % Hausdorff distance and average surface distance: the surface is the mask's voxels that have a face on
  the outside (beyond the array is outside), each counts as one; distances are between voxel centres.
  HD95 is the larger of the two directed 95th percentiles (linear interpolation), ASSD the mean over both
  surfaces' voxels together. MONAI 1.6 does the same. Elsewhere: medpy takes one percentile over both
  directions together, surface-distance weighs by area, which gives other numbers.
- Surface Dice: by area of surface, as Nikolov et al. (J. Med. Internet Res. 2021, 23:e26151) and the package
  surface-distance define it; each 2 x 2 x 2 neighbourhood that is not uniform carries the area of its
  marching-cubes triangles. MONAI with `use_subvoxels=True` does the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from scipy.spatial import cKDTree

from aiene.benchmark.metrics.nodes import (
    BoolArray,
    LabelArray,
    Spacing,
    as_labels,
    check_pair,
    check_spacing,
    components,
    match_nodes,
)
from aiene.benchmark.records import IOU_THRESHOLD, LOST, CaseMetrics, LabelMetrics, without_prediction
from aiene.errors import UsageError
from aiene.geometry.grid import bounding_box
from aiene.nodes.node import GTVN
from aiene.stats.bootstrap import cluster_bootstrap, ratio
from aiene.stats.records import Estimate, missing

FloatArray = npt.NDArray[np.float64]

HAUSDORFF_PERCENTILE = 95.0
_ROUNDING_MM = 1e-9


class SurfaceMetrics(NamedTuple):
    """How far two surfaces lie apart, in mm; `surface_dice` in the order of the tolerances asked for."""

    hd95_mm: float
    assd_mm: float
    surface_dice: tuple[float, ...]


def surface_metrics(
    truth: BoolArray, prediction: BoolArray, spacing: Spacing, *, tolerances_mm: Sequence[float] = (1.0, 2.0)
) -> SurfaceMetrics:
    """Distances of two masks that both hold voxels.

    Parameters
    ----------
    truth, prediction : bool (z, y, x), of one shape; best cut to the block that holds both.
    spacing : mm along z, y, x.
    tolerances_mm : a surface element counts as right up to this distance, itself included.

    Raises
    ------
    ValueError : one mask is empty.
    """
    if not truth.any() or not prediction.any():
        raise ValueError("an empty mask has no surface")
    there, back = _both_ways(_face_voxels(truth), _face_voxels(prediction), spacing)
    hd95 = max(float(np.percentile(way, HAUSDORFF_PERCENTILE)) for way in (there, back))
    assd = float(np.concatenate([there, back]).mean())
    return SurfaceMetrics(hd95, assd, _surface_dice(truth, prediction, spacing, tolerances_mm))


def _surface_dice(
    truth: BoolArray, prediction: BoolArray, spacing: Spacing, tolerances_mm: Sequence[float]
) -> tuple[float, ...]:
    true_codes, found_codes = _neighbourhoods(truth), _neighbourhoods(prediction)
    true_places, found_places = _on_surface(true_codes), _on_surface(found_codes)
    there, back = _both_ways(true_places, found_places, spacing)
    areas = _areas(spacing)
    true_areas, found_areas = areas[true_codes[true_places]], areas[found_codes[found_places]]
    total = true_areas.sum() + found_areas.sum()
    near = (
        true_areas[there <= tolerance + _ROUNDING_MM].sum()
        + found_areas[back <= tolerance + _ROUNDING_MM].sum()
        for tolerance in tolerances_mm
    )
    return tuple(float(area / total) for area in near)


def _both_ways(first: BoolArray, second: BoolArray, spacing: Spacing) -> tuple[FloatArray, FloatArray]:
    """How far (mm) each place of one map (z, y, x) is from the nearest of the other, and back."""
    points, others = (np.argwhere(places) * np.array(spacing) for places in (first, second))
    return _nearest(points, second[first], others), _nearest(others, first[second], points)


def _nearest(points: FloatArray, shared: BoolArray, others: FloatArray) -> FloatArray:
    """From each point to the nearest of the others, of which it may be one (`shared`)."""
    distances = np.zeros(len(points))
    if not shared.all():  # what lies in both is 0 apart, and half of a good prediction's surface does
        distances[~shared] = cKDTree(others, leafsize=32, balanced_tree=False).query(points[~shared])[0]
    return distances


def _face_voxels(mask: BoolArray) -> BoolArray:
    """The voxels of a mask that have a face on the outside."""
    faces: BoolArray = mask & ~ndimage.binary_erosion(mask)
    return faces


def _neighbourhoods(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Which of each 2 x 2 x 2 voxels are in the mask, as eight bits; the array is padded by one voxel."""
    voxels = np.pad(mask, 1).astype(np.uint8)
    size = [length - 1 for length in voxels.shape]
    codes = np.zeros(size, dtype=np.uint8)
    for bit, (z, y, x) in enumerate(np.ndindex(2, 2, 2)):
        codes |= voxels[z : z + size[0], y : y + size[1], x : x + size[2]] << np.uint8(7 - bit)
    return codes


def _on_surface(codes: npt.NDArray[np.uint8]) -> BoolArray:
    """The neighbourhoods that the surface runs through: they are not uniform."""
    places: BoolArray = (codes != 0) & (codes != 255)
    return places


def _areas(spacing: Spacing) -> FloatArray:
    """Area in mm2 of the surface in each of the 256 neighbourhoods."""
    codes, normals = _triangles()
    z, y, x = spacing
    lengths = np.linalg.norm(normals * np.array([y * x, z * x, z * y]), axis=1) / 2
    return np.bincount(codes, weights=lengths, minlength=256).astype(np.float64)


@lru_cache(maxsize=1)
def _triangles() -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Every triangle of the 256 neighbourhoods: its neighbourhood, and its normal of twice its area.

    The bits of a neighbourhood are its voxels (z, y, x), the highest first. Marching cubes (Lorensen and
    Cline 1987) of the half with fewer voxels, so that a neighbourhood and its negative have one area; this
    gives the table of the package surface-distance.
    """
    from skimage.measure import marching_cubes

    codes: list[int] = []
    normals: list[FloatArray] = []
    for code in range(1, 255):
        corners = np.array([(code >> (7 - bit)) & 1 for bit in range(8)], dtype=np.float64)
        few = corners if corners.sum() <= 4 else 1 - corners
        points, faces, _, _ = marching_cubes(few.reshape(2, 2, 2), 0.5, method="lorensen")
        edges = np.diff(points.astype(np.float64)[faces], axis=1)
        normals.append(np.cross(edges[:, 0], edges[:, 1]))
        codes += [code] * len(faces)
    return np.array(codes), np.concatenate(normals)


BOTH_ABSENT = "absent in truth and prediction"
NOT_PREDICTED = "nothing predicted, so that no distance can be given"
NOT_IN_TRUTH = "nothing in the truth, so that no distance can be given"


def label_metrics(
    truth: npt.ArrayLike, prediction: npt.ArrayLike, spacing: Sequence[float], *, label: int
) -> LabelMetrics:
    """Every metric of one label.

    Parameters
    ----------
    truth, prediction : label maps (z, y, x) on one grid.
    spacing : mm along z, y, x.

    Raises
    ------
    UsageError : the maps do not fit together, hold values that are no labels, or the spacing is none.
    """
    true_map, found_map = as_labels(truth, "the truth"), as_labels(prediction, "the prediction")
    check_pair(true_map, found_map)
    steps = check_spacing(spacing)
    true_mask, found_mask = true_map == label, found_map == label
    block = bounding_box(true_mask | found_mask)
    voxel_ml = float(np.prod(steps)) / 1000.0
    worst = float(np.linalg.norm((np.array(true_map.shape) - 1) * np.array(steps)))
    if block is None:
        nothing = (None,) * 6
        return LabelMetrics(label, 0, 0, 0, 0.0, 0.0, *nothing, 0.0, None, worst, BOTH_ABSENT)
    true_mask, found_mask = true_mask[block], found_mask[block]
    n_true, n_found = int(np.count_nonzero(true_mask)), int(np.count_nonzero(found_mask))
    shared = int(np.count_nonzero(true_mask & found_mask))
    surface = surface_metrics(true_mask, found_mask, steps) if n_true and n_found else None
    hd95, assd, within = surface or (None, None, (0.0, 0.0))
    return LabelMetrics(
        label=label,
        truth_voxels=n_true,
        predicted_voxels=n_found,
        shared_voxels=shared,
        truth_ml=n_true * voxel_ml,
        predicted_ml=n_found * voxel_ml,
        dice=2 * shared / (n_true + n_found),
        iou=shared / (n_true + n_found - shared),
        hd95_mm=hd95,
        assd_mm=assd,
        surface_dice_1mm=within[0],
        surface_dice_2mm=within[1],
        volume_error_ml=(n_found - n_true) * voxel_ml,
        volume_error_relative=(n_found - n_true) / n_true if n_true else None,
        worst_mm=worst,
        reason="" if n_true and n_found else (NOT_PREDICTED if n_true else NOT_IN_TRUTH),
    )


def aggregated_dice(
    cases: Sequence[LabelMetrics],
    patients: Sequence[str] | None = None,
    *,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Twice the shared volume of all cases over the sizes of all masks, as HECKTOR 2022 ranks.

    A case without the label in truth and prediction adds nothing, a false one counts against it. HECKTOR sums
    voxels of one spacing; volumes are summed here, which is the same there and fair where spacings differ.
    Source: Andrearczyk et al., HECKTOR 2022 overview (LNCS 13626, 2023).

    Parameters
    ----------
    cases : one label of every case.
    patients : of each case, for the interval by bootstrap over patients; None: each case is a patient.

    Returns
    -------
    None where no case holds the label, and where a case has no prediction: how much false volume it would
    have added is not known.
    """
    shared = np.array([case.shared_voxels for case in cases], dtype=np.float64)
    voxels = np.array([case.truth_voxels + case.predicted_voxels for case in cases], dtype=np.float64)
    ml = np.array([case.truth_ml + case.predicted_ml for case in cases], dtype=np.float64)
    voxel_ml = ml / np.maximum(voxels, 1)
    reason = without_prediction(sum(case.reason == LOST for case in cases), len(cases))
    if not reason and not voxels.sum():
        reason = "no case holds this label in truth or prediction"
    if reason:
        return missing(reason, len(cases))
    overlap = ratio(2 * (shared * voxel_ml), voxels * voxel_ml)
    return cluster_bootstrap(overlap, len(cases), patients, resamples=resamples, seed=seed)


# All metrics of one case


def case_metrics(
    truth: npt.ArrayLike,
    prediction: npt.ArrayLike,
    spacing: Sequence[float],
    *,
    labels: Sequence[int] = (1, GTVN),
    truth_nodes: npt.ArrayLike | None = None,
    predicted_nodes: npt.ArrayLike | None = None,
    confidences: Mapping[int, float] | None = None,
    iou_threshold: float = IOU_THRESHOLD,
) -> CaseMetrics:
    """Compare a prediction with the truth, label by label and node by node.

    Parameters
    ----------
    truth, prediction : label maps (z, y, x) on one grid; other values than `labels` are not looked at.
    spacing : mm along z, y, x.
    truth_nodes, predicted_nodes : maps whose values are single nodes; None: the connected parts (26
        neighbours) of label 2.
    confidences : of the predicted nodes, by their value in `predicted_nodes`, for the free-response curve.

    Raises
    ------
    UsageError : maps, spacing or threshold cannot be used.
    """
    true_map, found_map = as_labels(truth, "the truth"), as_labels(prediction, "the prediction")
    check_pair(true_map, found_map)
    steps = check_spacing(spacing)
    if confidences and predicted_nodes is None:
        raise UsageError("confidences belong to the values of a map of predicted nodes; give it too.")

    def nodes_of(given: npt.ArrayLike | None, labels_: LabelArray, what: str) -> LabelArray:
        return components(labels_ == GTVN) if given is None else as_labels(given, what)

    true_nodes = nodes_of(truth_nodes, true_map, "the truth's nodes")
    found_nodes = nodes_of(predicted_nodes, found_map, "the predicted nodes")
    check_pair(true_map, true_nodes)
    check_pair(true_nodes, found_nodes)
    return CaseMetrics(
        labels=tuple(label_metrics(true_map, found_map, steps, label=label) for label in labels),
        nodes=match_nodes(
            true_nodes, found_nodes, steps, iou_threshold=iou_threshold, confidences=confidences
        ),
    )
