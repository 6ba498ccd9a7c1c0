"""From nodes, places and scores to the rows of a result."""

from __future__ import annotations

from collections.abc import Sequence

from aiene.nodes import names_by_volume
from aiene.nodes.node import NativePlace, Node, NoNode, Score
from aiene.nodes.split import SMALLEST_SEED
from aiene.results.records import NodeResult


def node_results(
    nodes: Sequence[Node],
    places: Sequence[NativePlace],
    scores: Sequence[Score | None],
    threshold: float,
    *,
    sides_known: bool = True,
) -> tuple[NodeResult, ...]:
    """The nodes of a case as records, in order of falling volume.

    Parameters
    ----------
    nodes, places, scores : of the same nodes in the same order.
    threshold : a node is classified as ENE where its probability is over this, compared in float64.
    sides_known : the CT's file says how the patient lies; else no node has a side.
    """
    results = [
        NodeResult(
            name=name,
            number=node.number,
            pos=None if score is None else score.pos,
            ene=None if score is None else score.ene,
            ene_classification=None if score is None else int(score.ene > threshold),
            volume_before_mm3=node.volume_before_mm3,
            volume_after_mm3=node.volume_after_mm3,
            axes=_axes_columns(node),
            contour_mm3=node.contour_mm3,
            centroid_lps_mm=place.centroid_lps_mm,
            side=place.side if sides_known else "",
            native_volume_mm3=place.volume_mm3,
            native_long_axis_mm=place.long_axis_mm,
            native_short_axis_mm=place.short_axis_mm,
            touches_crop_border=node.touches_border,
            touches_ct_border=place.touches_border,
        )
        for name, node, place, score in zip(names_by_volume(nodes), nodes, places, scores, strict=True)
    ]
    return tuple(sorted(results, key=lambda result: result.value))


def node_warnings(
    nodes: Sequence[Node], places: Sequence[NativePlace], scores: Sequence[Score | None]
) -> list[str]:
    """What the user should look at: nodes cut off at a border, without a voxel, without a probability."""
    warnings = []
    names = names_by_volume(nodes)
    cut = [
        n for n, node, p in zip(names, nodes, places, strict=True) if node.touches_border or p.touches_border
    ]
    if cut:
        warnings.append(f"{', '.join(sorted(cut))} may be cut off at the border of the crop or the CT")
    thin = [name for name, place in zip(names, places, strict=True) if not place.volume_mm3]
    if thin:
        warnings.append(
            f"{', '.join(sorted(thin))}: no voxel of the CT's own grid lies in it, so its native volume is 0"
        )
    blank = [name for name, score in zip(names, scores, strict=True) if score is None]
    if blank:
        from aiene.classify import UNSCORED  # loads torch, as `scores` did

        warnings.append(f"{', '.join(sorted(blank))}: {UNSCORED}")
    return warnings


def contour_warnings(no_node: Sequence[NoNode]) -> list[str]:
    """What of the contours is counted in no node, and why.

    Parameters
    ----------
    no_node : in order of falling volume.
    """
    reasons = {
        False: f"too small for a node (one takes {SMALLEST_SEED} voxels of the crop, a layer around it "
        "counted)",
        True: "outside the crop that the networks see",
    }
    warnings = []
    for outside, why in reasons.items():
        parts = [part for part in no_node if part.outside is outside]
        if parts:
            x, y, z = parts[0].centroid_lps_mm
            many = "1 part" if len(parts) == 1 else f"{len(parts)} parts"
            verb, largest = ("is", "it lies") if len(parts) == 1 else ("are", "the largest lies")
            volume = sum(part.volume_mm3 for part in parts)
            warnings.append(
                f"{many} of the contours of nodes ({volume:.4g} mm3) {verb} {why} and counted in none; "
                f"{largest} at ({x:.0f}, {y:.0f}, {z:.0f}) mm LPS"
            )
    return warnings


def threshold_warnings(
    nodes: Sequence[Node], scores: Sequence[Score | None], threshold: float, spread: float | None
) -> list[str]:
    """Which nodes are so near the threshold that the registration alone could move them over it.

    Parameters
    ----------
    nodes, scores : of the same nodes in the same order.
    spread : how far the registration moves an ENE probability (`Profile.ene_spread`); None: not at all.
    """
    if spread is None:
        return []
    names = names_by_volume(nodes)
    near = sorted(
        name
        for name, score in zip(names, scores, strict=True)
        if score is not None and abs(score.ene - threshold) <= spread
    )
    if not near:
        return []
    return [
        f"{', '.join(near)}: the ENE probability lies within {spread:g} of the threshold {threshold:g}, as "
        "far as this profile's registration moves it where the same CT is stored in another order: the "
        "AI-ENE number is not certain"
    ]


def _axes_columns(node: Node) -> dict[str, float] | None:
    if node.axes is None:
        return None
    planes = ("axial", "coronal", "sagittal")
    columns = {
        f"{kind}_axis_{p}": getattr(node.axes, f"{kind}_{p}") for kind in ("short", "long") for p in planes
    }
    return {**columns, "largest_short_axis": node.axes.largest_short}
