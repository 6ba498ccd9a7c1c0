"""A run under review by one reader: cases opened, drawings edited, measured as a run measures, and saved.

A drawing is uint8 (z, y, x) on a page's block: 0 nothing, 1 to 250 nodes, `scene.PRIMARY` the primary tumour.
What a reader's tools do to it (grow a node from a click, fill, interpolate, cut) are pure functions.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from aiene.device import resolve_device
from aiene.errors import AieneError, CaseError, UsageError
from aiene.export.source_lookup import Images
from aiene.finished_runs import RunRecord, cases_of, every_case, read_labels, read_run
from aiene.geometry.grid import Grid, Triple, Volume, bounding_box, triple
from aiene.ingest.case import Case
from aiene.models.bundle import Bundle, find_bundle
from aiene.pipeline import (
    Joins,
    Networks,
    PreprocessedCase,
    Settings,
    infer_case,
    load_networks,
    preprocess_case,
)
from aiene.preprocess.preprocess import Preparation, load_preparation
from aiene.results.pictures import key_index
from aiene.results.records import CaseArrays, CaseResult
from aiene.results.reviews import ReviewStatus, ReviewStore, Version
from aiene.results.tables import entropy_bits
from aiene.viewer.case_page import crop_of
from aiene.viewer.risk_groups import Group, RiskGroups
from aiene.viewer.scene import PRIMARY, Scene, scene_of

Drawing = npt.NDArray[np.uint8]
Voxel = tuple[int, int, int]
Spacing = tuple[float, float, float]

_REACH_MM: Final = 14.0
"""A click grows no node farther than this: most nodes are smaller, and what is larger is drawn on."""
_AROUND_HU: Final = 35.0
"""Tissue that differs by less from the clicked spot's mean belongs to it: fat is 100 HU away, noise 10."""
_SPOT_MM: Final = 2.0
_OPEN_MM: Final = 1.5
_GAP_MM: Final = 1.6
"""Width of a cut: more than a voxel of the networks' crop (1 mm), so that the watershed sees two nodes."""


def grow(drawing: Drawing, hu: npt.NDArray[Any], spacing: Spacing, seed: Voxel, value: int) -> Drawing:
    """A node grown from the CT around a voxel.

    Parameters
    ----------
    hu : (z, y, x) on the same block.
    seed : where the reader clicked.
    value : of the new voxels; what is drawn already stays.

    Raises
    ------
    UsageError : nothing of the tissue around the click hangs together.
    """
    away = _distance_mm(drawing.shape, spacing, seed)
    spot = away <= max(_SPOT_MM, *(mm / 2 for mm in spacing))
    mean = float(np.mean(hu[spot]))
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.7 / mm for mm in spacing])
    like = (np.abs(smooth - mean) <= _AROUND_HU) & (away <= _REACH_MM) & ((drawing == 0) | (drawing == value))
    like |= spot & (drawing == 0)
    core = like & (ndimage.distance_transform_edt(like, sampling=spacing) > _OPEN_MM) | spot
    parts, _ = ndimage.label(core)
    if not parts[seed]:
        raise UsageError("nothing can be grown here; draw the node by hand.")
    kept = parts == parts[seed]
    grown = (ndimage.distance_transform_edt(~kept, sampling=spacing) <= _OPEN_MM) & like
    grown = ndimage.binary_fill_holes(grown)
    return np.where(grown & (drawing == 0), np.uint8(value), drawing)


def fill(drawing: Drawing, value: int) -> Drawing:
    """A node with the holes of its axial slices filled; what else is drawn there stays."""
    result = drawing.copy()
    for z in np.flatnonzero((drawing == value).any(axis=(1, 2))):
        filled = ndimage.binary_fill_holes(drawing[z] == value)
        result[z][filled & (drawing[z] == 0)] = value
    return result


def interpolate(drawing: Drawing, value: int) -> Drawing:
    """A node with the axial slices filled in between those that it is drawn on.

    By the mean of the signed distances to both outlines, weighted by nearness (shape-based interpolation:
    Raya and Udupa, IEEE Trans. Med. Imaging 9, 1990).

    Raises
    ------
    UsageError : it is drawn on one slice alone.
    """
    drawn = np.flatnonzero((drawing == value).any(axis=(1, 2)))
    if len(drawn) < 2:
        raise UsageError(
            "the node is drawn on one slice alone; draw it on another to interpolate between them."
        )
    result = drawing.copy()
    for low, high in pairwise(drawn.tolist()):
        ends = [_signed(drawing[z] == value) for z in (low, high)]
        for z in range(low + 1, high):
            share = (z - low) / (high - low)
            inside = (1 - share) * ends[0] + share * ends[1] > 0
            result[z][inside & (drawing[z] == 0)] = value
    return result


def cut(
    drawing: Drawing, spacing: Spacing, value: int, start: Voxel, end: Voxel, fresh: int | None = None
) -> Drawing:
    """A node parted by a plane through a line that was drawn on a slice, across that slice.

    The plane's voxels are taken out, `_GAP_MM` wide, so that the run's own watershed finds two nodes.

    Parameters
    ----------
    start, end : voxels of one slice, of any plane.
    fresh : value of the other part; the next one if None.

    Raises
    ------
    UsageError : the two are one voxel, lie on no common slice, or the line does not split the node.
    """
    step = np.subtract(end, start) * np.array(spacing)
    fixed = [axis for axis in range(3) if start[axis] == end[axis]]
    if not fixed or not step.any():
        raise UsageError("draw a line across the node on one slice to split it.")
    normal = np.cross(step, np.eye(3)[fixed[0]])
    normal /= np.linalg.norm(normal)
    places = np.argwhere(drawing == value)
    if not value or value == PRIMARY or not len(places):
        raise UsageError("choose a node before splitting it.")
    away = ((places - np.array(start)) * np.array(spacing)) @ normal
    gap = np.abs(away) <= max(_GAP_MM, float(np.abs(normal * spacing).max())) / 2
    result = drawing.copy()
    result[tuple(places[gap].T)] = 0
    if not (away[~gap] > 0).any() or not (away[~gap] < 0).any():
        raise UsageError("the line does not split the node; draw it across the whole node.")
    result[tuple(places[~gap & (away > 0)].T)] = fresh or next_value(drawing)
    return result


def next_value(drawing: Drawing) -> int:
    """The lowest value that no node has.

    Raises
    ------
    UsageError : all are taken.
    """
    used = set(np.unique(drawing).tolist())
    free = next((value for value in range(1, 251) if value not in used), None)
    if free is None:
        raise UsageError("there are 250 nodes already.")
    return free


def touched(before: Drawing, after: Drawing) -> bool:
    """Whether the contours (nodes as one, primary tumour) differ."""
    return not np.array_equal(as_labels(before), as_labels(after))


def as_labels(drawing: npt.NDArray[Any]) -> Drawing:
    """The values of `labels.nii.gz`: 2 for every node, 1 for the primary tumour."""
    return np.where(drawing == PRIMARY, 1, np.where(drawing > 0, 2, 0)).astype(np.uint8)


def _signed(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Distance to the outline in pixels, above 0 within."""
    inside = ndimage.distance_transform_edt(mask)
    outside = ndimage.distance_transform_edt(~mask)
    signed: npt.NDArray[np.float64] = np.where(mask, inside - 0.5, 0.5 - outside)
    return signed


def _distance_mm(shape: tuple[int, ...], spacing: Spacing, seed: Voxel) -> npt.NDArray[np.float64]:
    squares = [((np.arange(n) - at) * mm) ** 2 for n, at, mm in zip(shape, seed, spacing, strict=True)]
    z, y, x = np.ix_(*squares)
    away: npt.NDArray[np.float64] = np.sqrt(z + y + x)
    return away


def span_of(drawing: Drawing, value: int) -> Voxel | None:
    """A voxel of a node, on its largest axial slice; None where it has none."""
    mask = drawing == value
    return key_index(mask) if bounding_box(mask) is not None else None


_KEPT: Final = 2  # cases in memory: one that is looked at, and the one before
_OWN_LABELS: Final = "2"


@dataclass(frozen=True, eq=False)
class Opened:
    """A case that is looked at.

    Parameters
    ----------
    result : of the latest version, or of the run where there is none.
    scene : its neck with the labels of that version.
    version : of the latest version; None where there is none.
    """

    result: CaseResult
    scene: Scene
    version: Version | None

    @property
    def number(self) -> int:
        """Of the version; 0 for the model's answer."""
        return self.version.number if self.version else 0

    @property
    def joins(self) -> int:
        """How many pairs of nodes count as one in it."""
        return len(self.version.joins) if self.version else 0


@dataclass(frozen=True, eq=False)
class Change:
    """What a reader saves.

    Parameters
    ----------
    drawing : uint8 of the block's shape; None leaves the contours as they are.
    base : number of the version that the work began from.
    joins : pairs of values of the drawing whose nodes count as one.
    rejected : value of the drawing that was opened -> why that node was taken out.
    anyway : also where another window has saved meanwhile.
    """

    drawing: Drawing | None
    base: int
    status: ReviewStatus
    reason: str = ""
    joins: Sequence[tuple[int, int]] = ()
    rejected: dict[int, str] | None = None
    anyway: bool = False


class Review:
    """One reader's session on a run.

    Parameters
    ----------
    out : the folder of the run.
    reader : whose work it is.
    images : where the CTs lie now; None is the run's input.
    groups : a stratified clinical table; None shows no risk groups.
    blind : neither the model's contours nor its probabilities are shown.

    Raises
    ------
    UsageError : no results of a run lie there, or the bundle that made them is another one by now.
    ModelError : the bundle cannot be used.
    """

    def __init__(
        self,
        out: Path,
        reader: str,
        *,
        images: Path | None = None,
        groups: RiskGroups | None = None,
        blind: bool = False,
        device: str = "auto",
    ) -> None:
        self.out, self.blind, self.groups = out, blind, groups
        self.run: RunRecord = read_run(out)
        self.store = ReviewStore(out, reader)
        self.results = {r.case_id: r for r in cases_of(out) if isinstance(r, CaseResult)}
        self.unread = [r for r in every_case(out) if r.case_id not in self.results]
        self._images = Images.of_run(self.run, images)
        self._bundle: Bundle = find_bundle(self.run.model)
        if self._bundle.sha256 != self.run.maker.bundle_sha256:
            raise UsageError(
                f"the model bundle {self.run.maker.bundle_name} is not the one of the run, so corrections "
                "could not be measured in the same way; install that bundle again, or repeat the run."
            )
        self._preparation: Preparation = load_preparation(self._bundle, self.run.registration)
        self._networks: Networks = load_networks(self._bundle, resolve_device(device), own_masks=True)
        self._ready: OrderedDict[str, PreprocessedCase] = OrderedDict()
        self._scenes: OrderedDict[str, Opened] = OrderedDict()
        self._measuring, self._preparing = threading.Lock(), threading.Lock()
        self._opening = threading.Lock()

    def work_list(self) -> list[dict[str, Any]]:
        """A row for each case: what is left to do first, of these the most uncertain first."""
        rows = []
        for result in (*self.results.values(), *self.unread):
            saved = self.store.latest(result.case_id) if self._can_be_read(result) else None
            status: str = result.status if not self._can_be_read(result) else "to do"
            status = saved.version.status if saved else status
            shown = saved.result if saved else result
            bits = max((b for n in shown.nodes if (b := entropy_bits(n.ene)) is not None), default=0.0)
            rows.append(
                {
                    "id": result.case_id,
                    "status": status,
                    "reason": result.reason,
                    "warnings": list(result.warnings),
                    "nodes": None if self.blind and not saved else len(shown.nodes),
                    "count": None if self.blind else shown.n_ai_ene,
                    "bits": None if self.blind else round(bits, 3),
                    "versions": saved.version.number if saved else 0,
                }
            )
        order = {"to do": 0, "set aside": 1, "corrected": 2, "accepted": 3, "failed": 4, "skipped": 5}
        return sorted(rows, key=lambda row: (order[str(row["status"])], -(row["bits"] or 0), row["id"]))

    def open(self, case_id: str) -> Opened:
        """A case with its latest contours; its preparation for the networks begins in the background.

        Raises
        ------
        UsageError : no such case, or it has no result.
        CaseError : its CT is gone.
        """
        with self._opening:
            result = self._known(case_id)
            saved = self.store.latest(case_id)
            kept = self._scenes.get(case_id)
            if kept is None or kept.number != (saved.version.number if saved else 0):
                scene = self._scene(result) if kept is None else kept.scene
                if saved is not None:
                    scene = scene.relabelled(*_maps(saved.folder, scene.native))
                kept = Opened(saved.result if saved else result, scene, saved.version if saved else None)
            self._keep(self._scenes, case_id, kept)
        threading.Thread(target=self._prepare_quietly, args=(case_id,), daemon=True).start()
        return kept

    def save(self, case_id: str, change: Change) -> Opened:
        """Measure a drawing as a run measures own masks, and add it as a version.

        Raises
        ------
        UsageError : the drawing is of another grid.
        StaleError : another window has saved meanwhile, and `change.anyway` is not set.
        OutputError : it cannot be written.
        """
        before = self.open(case_id)
        old = before.scene.labels.array
        if self.blind and before.version is None:
            old = np.zeros_like(old)
        drawing = old if change.drawing is None else change.drawing
        if drawing.shape != old.shape:
            raise UsageError("the drawing is on a different grid from the case; open the case again.")
        version = Version(
            number=0,
            reader=self.store.reader,
            time=datetime.now(UTC).isoformat(timespec="seconds"),
            status=change.status,
            reason=change.reason,
            edited=touched(old, drawing) or bool(before.version and before.version.edited) or self.blind,
            joins=(*(before.version.joins if before.version else ()), *self._points(before, drawing, change)),
            rejected=(
                *(before.version.rejected if before.version else ()),
                *_rejected(before, drawing, change),
            ),
        )
        with self._measuring:
            result, arrays = self._measured(case_id, before, old, drawing, version)
            saved = self.store.save(version, result, arrays, base=change.base, anyway=change.anyway)
            self.store.write_mask(saved)
            self.store.write_tables(
                list(self.results.values()),
                axes=any(node.axes for r in self.results.values() for node in r.nodes),
                model=self.run.maker.bundle_name,
                rule=self.run.rule,
            )
        return self.open(case_id)

    def group(self, result: CaseResult) -> Group | None:
        """The risk group of a case for the count of a result."""
        if self.groups is None or self.blind:
            return None
        return self.groups.of({result.case_id: result.n_ai_ene})[result.case_id]

    def _measured(
        self, case_id: str, before: Opened, old: Drawing, drawing: Drawing, version: Version
    ) -> tuple[CaseResult, CaseArrays]:
        """The drawing measured; what nobody has changed keeps the numbers that it has."""
        scene, folder = before.scene, self._folder(case_id)
        unseen = self.blind and before.version is None
        if not unseen and not touched(old, drawing) and len(version.joins) == before.joins:
            nodes, labels = _maps(folder, scene.native)
            return before.result, CaseArrays(labels, nodes)
        outside, nodes_before = np.zeros(scene.native.size, np.uint8), None
        if not unseen:
            nodes_before, labels_before = _maps(folder, scene.native)
            outside = labels_before.array
        labels = Volume(scene.into_native(as_labels(drawing), outside), scene.native)
        result, arrays = self.measure(case_id, labels, version.joins)
        if nodes_before is not None and arrays.nodes is not None:
            result = _with_untouched(result, arrays.nodes, before.result, nodes_before)
        return replace(result, source=self._known(case_id).source), arrays

    def measure(self, case_id: str, labels: Volume, joins: Joins) -> tuple[CaseResult, CaseArrays]:
        """A label map through the same functions as `aiene run --masks`.

        Parameters
        ----------
        labels : uint8 on the native grid: 2 nodes, 1 the primary tumour.
        joins : see `pipeline.infer_case`.
        """
        settings = Settings(
            self.run.rule.ene_threshold,
            fg_labels=_OWN_LABELS,
            include_short_axes=any(node.axes for node in self._known(case_id).nodes),
            pos_from=self.run.rule.pos_from,
        )
        return infer_case(
            replace(self._prepared(case_id), mask=labels),
            self._networks,
            settings,
            labels=self._bundle.card.labels,
            midline_x=self._preparation.midline_x,
            joins=joins,
        )

    def _folder(self, case_id: str) -> Path:
        saved = self.store.latest(case_id)
        return saved.folder if saved else self.out / "cases" / case_id

    def _scene(self, result: CaseResult) -> Scene:
        """The block with the model's contours; that of every version is the same."""
        ct = self._images.ct(result)
        if isinstance(ct, str):
            raise CaseError(ct.rstrip("."), "a case cannot be corrected without its CT")
        return scene_of(ct, *_maps(self.out / "cases" / result.case_id, ct.grid), *crop_of(result))

    def _points(self, before: Opened, drawing: Drawing, change: Change) -> list[tuple[Triple, Triple]]:
        """The pairs to join as points on the CT: each node's key voxel."""
        pairs = []
        for one, other in change.joins:
            ends = [span_of(drawing, value) for value in (one, other)]
            points = [triple(before.scene.grid.points(np.array(end))) for end in ends if end is not None]
            if len(points) == 2:
                pairs.append((points[0], points[1]))
        return pairs

    def _prepared(self, case_id: str) -> PreprocessedCase:
        """The case on the eve of the networks, made once."""
        with self._preparing:
            if case_id not in self._ready:
                case = self._images.case(self._known(case_id))
                if not isinstance(case, Case):
                    raise CaseError(case.rstrip("."), "a case cannot be corrected without its CT")
                hidden = replace(case, case_id=case_id)
                self._keep(self._ready, case_id, preprocess_case(hidden, self._preparation))
            return self._ready[case_id]

    def _prepare_quietly(self, case_id: str) -> None:
        """What fails here fails again, and is told, when the case is saved."""
        with suppress(AieneError):
            self._prepared(case_id)

    def _known(self, case_id: str) -> CaseResult:
        result = self.results.get(case_id)
        if result is None:
            raise UsageError("there is no such case in this run.")
        if not self._can_be_read(result):
            raise UsageError(f"the run has no result for this case: {result.reason}")
        return result

    @staticmethod
    def _can_be_read(result: CaseResult) -> bool:
        return result.status in ("ok", "no_nodes")

    @staticmethod
    def _keep(kept: OrderedDict[str, Any], case_id: str, value: Any) -> None:
        kept[case_id] = value
        kept.move_to_end(case_id)
        while len(kept) > _KEPT:
            kept.popitem(last=False)


def _maps(folder: Path, grid: Grid) -> tuple[Volume, Volume]:
    nodes = read_labels(folder / "nodes.nii.gz", grid, np.uint16)
    return nodes, read_labels(folder / "labels.nii.gz", grid, np.uint8)


def _with_untouched(
    result: CaseResult, nodes: Volume, before: CaseResult, nodes_before: Volume
) -> CaseResult:
    """A node that nobody has touched keeps the numbers that it had.

    The model judged its own contour on the networks' crop. Measured again, it comes from the CT's grid by
    nearest neighbour, which moves a probability (by 0.4 in a node of the demo's phantom) though nobody has
    said a word on that node.
    """
    known = {node.value: node for node in before.nodes}
    voxels = np.bincount(nodes_before.array.ravel())
    kept = []
    for node in result.nodes:
        under = nodes_before.array[nodes.array == node.value]
        value = int(under[0]) if len(under) else 0
        same = value in known and len(under) == voxels[value] and bool((under == value).all())
        kept.append(replace(known[value], name=node.name, number=node.number) if same else node)
    return replace(result, nodes=tuple(kept))


def _rejected(before: Opened, drawing: Drawing, change: Change) -> list[dict[str, Any]]:
    """What is said of the nodes that are gone; a rejection that was taken back leaves no word."""
    nodes = {node.value: node for node in before.result.nodes}
    return [
        {
            "name": nodes[value].name,
            "reason": reason,
            "native_volume_mm3": nodes[value].native_volume_mm3,
            "centroid_lps_mm": list(nodes[value].centroid_lps_mm),
            "ene": nodes[value].ene,
        }
        for value, reason in (change.rejected or {}).items()
        if value in nodes and not (drawing == value).any()
    ]
