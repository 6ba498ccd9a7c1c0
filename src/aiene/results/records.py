"""The result of one case, and its JSON form, from which every table is made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, NamedTuple

from aiene.errors import Said, case_name, counted, joined, ours, said
from aiene.geometry.grid import RigidTransform, Volume
from aiene.nodes.node import (
    SMALLEST_SEED,
    UNSCORED,
    CountingRule,
    NativePlace,
    Node,
    NoNode,
    Score,
    names_by_volume,
)

Status = Literal["ok", "no_nodes", "failed", "skipped"]

FORMAT = 2
"""1 told the size of a node with the layer of the watershed around it; such a result is made anew."""


@dataclass(frozen=True, eq=False)
class CaseArrays:
    """The images of one case.

    Parameters
    ----------
    labels : uint8 label map (GTVp, GTVn) on the native CT's grid.
    nodes : uint16 node map there, value k for `GTVn_k`.
    prepared : the networks' input in its true place on the patient, where it is to be kept.
    to_native : the rigid transform from the template's space to the native CT's, kept with it.
    """

    labels: Volume
    nodes: Volume
    prepared: Volume | None = None
    to_native: RigidTransform | None = None


@dataclass(frozen=True)
class NodeResult:
    """One lymph node, in numbers.

    Parameters
    ----------
    name : `GTVn_01`, ... in order of falling volume; its number is the value in `nodes.nii.gz`.
    number : the published numbering.
    pos, ene : probabilities of the classifier, 0 to 1; None where it could not judge the node.
    ene_classification : 1 where the node counts as one with extension (`CountingRule`); None where `ene` is.
    volume_before_mm3, volume_after_mm3 : as published: on the crop, with the layer of the watershed, before
        and after dilation.
    axes : the seven published axes in mm, with that layer, by their column name; None where not asked for.
    contour_mm3 : of the contour on the crop, without a layer.
    centroid_lps_mm : of the contour on the native CT, (x, y, z).
    side : left, right or midline; empty where the CT's file does not say how the patient lies.
    native_volume_mm3 : of the contour on the native CT; 0 where no voxel of it lies in the node.
    native_long_axis_mm, native_short_axis_mm : of the contour in its largest axial slice there; None where no
        voxel lies in the node.
    touches_crop_border, touches_ct_border : a part of the node may be missing.
    counts : whether it counts as a node at all (`CountingRule`).
    """

    name: str
    number: int
    pos: float | None
    ene: float | None
    ene_classification: int | None
    volume_before_mm3: float
    volume_after_mm3: float
    axes: dict[str, float] | None
    contour_mm3: float
    centroid_lps_mm: tuple[float, float, float]
    side: str
    native_volume_mm3: float
    native_long_axis_mm: float | None
    native_short_axis_mm: float | None
    touches_crop_border: bool
    touches_ct_border: bool
    counts: bool = True

    @property
    def verdict(self) -> str:
        """What is said of its extension beside the probability."""
        if self.ene is None:
            return "not judged"
        if not self.counts:
            return "not counted, `pos` too low"
        return "ENE" if self.ene_classification == 1 else "no ENE"

    @property
    def value(self) -> int:
        """The node's value in `nodes.nii.gz`."""
        return int(self.name.rsplit("_", 1)[1])


@dataclass(frozen=True)
class CaseResult:
    """What became of one case.

    Parameters
    ----------
    status : `ok`, `no_nodes`, `failed` or `skipped`.
    reason : why it failed or was skipped; empty otherwise.
    nodes : in order of falling volume.
    has_primary : a primary tumour (GTVp) was found; None where nobody looked for one.
    has_chosen : a voxel of the chosen labels (`--fg-labels`) was found, even if every node was dropped.
    warnings : what the user should look at.
    notes : facts about how the input was read.
    seconds : wall time per stage.
    facts : input, geometry and registration, for `case.json`.
    source : where the CT lay: path below the input; a label of it where it is pseudonymised.
    patient, date, counts : whose CT it is; see `Person`.
    identity : what the result was made from and how; a result is taken up again only where it is the same.
    seal : of the input's files, by what no user sets; where it is the same, so is their content.
    """

    case_id: str
    status: Status
    reason: str = ""
    nodes: tuple[NodeResult, ...] = ()
    has_primary: bool | None = False
    has_chosen: bool = False
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    identity: str = ""
    seal: str = ""
    source: str = ""
    patient: str = ""
    date: str = ""
    counts: bool = True

    @property
    def n_ai_ene(self) -> int:
        """The AI-ENE node number: how many nodes are classified as ENE."""
        return sum(node.ene_classification == 1 for node in self.nodes)

    @property
    def sides_known(self) -> bool:
        """Whether the CT's file says how the patient lies, so that left and right can be told."""
        return bool(self.facts.get("input", {}).get("orientation_known", True))

    def to_json(self) -> dict[str, Any]:
        """JSON values only; `from_json` takes them back."""
        return {"format": FORMAT, **asdict(self)}

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> CaseResult:
        """The record of a `case.json`.

        Raises
        ------
        KeyError, TypeError, ValueError : the content is not of this form.
        """
        fields = dict(content)
        if fields.pop("format") != FORMAT:
            raise ValueError("a record of another version")
        fields["nodes"] = tuple(
            NodeResult(**{**node, "centroid_lps_mm": tuple(node["centroid_lps_mm"])})
            for node in fields["nodes"]
        )
        fields["warnings"], fields["notes"] = tuple(fields["warnings"]), tuple(fields["notes"])
        return cls(**fields)


# From nodes, places and scores to the rows of a result.


def node_results(
    nodes: Sequence[Node],
    places: Sequence[NativePlace],
    scores: Sequence[Score | None],
    rule: CountingRule,
    *,
    sides_known: bool = True,
) -> tuple[NodeResult, ...]:
    """The nodes of a case as records, in order of falling volume.

    Parameters
    ----------
    nodes, places, scores : of the same nodes in the same order.
    rule : which of them count.
    sides_known : the CT's file says how the patient lies; else no node has a side.
    """
    results = [
        NodeResult(
            name=name,
            number=node.number,
            pos=None if score is None else score.pos,
            ene=None if score is None else score.ene,
            ene_classification=None if score is None else int(rule.is_ene(score.pos, score.ene)),
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
            counts=score is None or rule.counts(score.pos),
        )
        for name, node, place, score in zip(names_by_volume(nodes), nodes, places, scores, strict=True)
    ]
    return tuple(sorted(results, key=lambda result: result.value))


def node_warnings(
    nodes: Sequence[Node], places: Sequence[NativePlace], scores: Sequence[Score | None]
) -> list[Said]:
    """What the user should look at: nodes cut off at a border, without a voxel, without a probability."""
    warnings = []
    names = names_by_volume(nodes)
    cut = [
        n for n, node, p in zip(names, nodes, places, strict=True) if node.touches_border or p.touches_border
    ]
    if cut:
        warnings.append(said("{} may be cut off at the border of the crop or the CT", _names(cut)))
    thin = [name for name, place in zip(names, places, strict=True) if not place.volume_mm3]
    if thin:
        warnings.append(
            said(
                "{}: too small to hold a voxel centre of the CT, so its volume is 0",
                _names(thin),
            )
        )
    blank = [name for name, score in zip(names, scores, strict=True) if score is None]
    if blank:
        warnings.append(said("{}: {}", _names(blank), ours(UNSCORED)))
    return warnings


def _names(nodes: Iterable[str]) -> Said:
    return joined(", ", map(ours, sorted(nodes)))


def contour_warnings(no_node: Sequence[NoNode]) -> list[Said]:
    """What of the contours is counted in no node, and why.

    Parameters
    ----------
    no_node : in order of falling volume.
    """
    reasons = {
        False: said(
            "too small for a node (a node needs {} voxels of the crop, a layer around it counted)",
            SMALLEST_SEED,
        ),
        True: ours("outside the crop that the networks see"),
    }
    warnings = []
    for outside, why in reasons.items():
        parts = [part for part in no_node if part.outside is outside]
        if parts:
            x, y, z = parts[0].centroid_lps_mm
            verb, largest = ("is", "it lies") if len(parts) == 1 else ("are", "the largest lies")
            volume = sum(part.volume_mm3 for part in parts)
            warnings.append(
                said(
                    "{} of the contours of nodes ({:.4g} mm3) {} {} and counted in none; "
                    "{} at ({:.0f}, {:.0f}, {:.0f}) mm LPS",
                    counted(len(parts), "part"),
                    volume,
                    ours(verb),
                    why,
                    ours(largest),
                    x,
                    y,
                    z,
                )
            )
    return warnings


def threshold_warnings(nodes: Sequence[NodeResult], rule: CountingRule, spread: float | None) -> list[Said]:
    """Nodes with extension that do not count, and those that the registration could move over the threshold.

    Parameters
    ----------
    spread : how far the registration moves an ENE probability (`Profile.ene_spread`); None: not at all.
    """
    threshold = rule.ene_threshold
    judged = [(node.name, node.ene, rule.counts(node.pos)) for node in nodes if node.ene is not None]
    out = sorted(name for name, ene, counts in judged if ene > threshold and not counts)
    near = sorted(
        name
        for name, ene, counts in judged
        if spread is not None and abs(ene - threshold) <= spread and counts
    )
    warnings = []
    if out:
        warnings.append(
            said(
                "{}: the ENE probability is over {:g}, but `pos` is under "
                "{:g}, so the AI-ENE number leaves it out; check whether it is a node",
                _names(out),
                threshold,
                rule.pos_from,
            )
        )
    if near:
        warnings.append(
            said(
                "{}: the ENE probability lies within {:g} of the threshold {:g}, "
                "within what this profile's registration changes when the same CT is stored in another "
                "order: the AI-ENE number is not certain",
                _names(near),
                spread,
                threshold,
            )
        )
    return warnings


def recounted(
    result: CaseResult, before: CountingRule, now: CountingRule, spread: float | None
) -> CaseResult:
    """The same case with its nodes counted by another rule; no network runs again.

    Parameters
    ----------
    before : how `result` was counted.
    spread : as in `threshold_warnings`.
    """
    nodes = tuple(
        replace(
            node,
            ene_classification=None if node.ene is None else int(now.is_ene(node.pos, node.ene)),
            counts=now.counts(node.pos),
        )
        for node in result.nodes
    )
    old = threshold_warnings(result.nodes, before, spread)
    kept = tuple(warning for warning in result.warnings if warning not in old)
    return replace(result, nodes=nodes, warnings=(*kept, *threshold_warnings(nodes, now, spread)))


def _axes_columns(node: Node) -> dict[str, float] | None:
    if node.axes is None:
        return None
    planes = ("axial", "coronal", "sagittal")
    columns = {
        f"{kind}_axis_{p}": getattr(node.axes, f"{kind}_{p}") for kind in ("short", "long") for p in planes
    }
    return {**columns, "largest_short_axis": node.axes.largest_short}


def totals(results: Sequence[CaseResult]) -> dict[str, Any]:
    """What the record of a run tells of its cases: seconds of each stage over all, and a line a case."""
    stages = sorted({stage for result in results for stage in result.seconds})
    return {
        "seconds": {s: round(sum(r.seconds.get(s, 0.0) for r in results), 3) for s in stages},
        "cases": [
            {
                "case_id": result.case_id,
                "status": result.status,
                "input_sha256": result.facts.get("input", {}).get("sha256"),
                "seconds": result.seconds,
            }
            for result in results
        ],
    }


class Person(NamedTuple):
    """Whose CT a case is; see `ingest.identity.group_by_patient`.

    Parameters
    ----------
    case_id, patient : as they may be shown.
    date : of the CT, YYYY-MM-DD; empty where unknown or hidden.
    counts : it is the CT of its patient that counts.
    """

    case_id: str
    patient: str
    date: str
    counts: bool

    def of(self, result: CaseResult) -> CaseResult:
        """A result of this case with its patient."""
        return replace(result, patient=self.patient, date=self.date, counts=self.counts)


def same_ct_told(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The results, with a warning where several cases hold the very same voxels: a CT that counts twice."""
    alike: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if voxels := result.facts.get("input", {}).get("voxels_sha256"):
            alike[voxels].append(result.case_id)
    told = []
    for result in results:
        twins = alike.get(result.facts.get("input", {}).get("voxels_sha256"), [])
        others = [case_id for case_id in twins if case_id != result.case_id]
        if others:
            warning = said(
                "the same CT, voxel for voxel, is also the case {}", joined(", ", map(case_name, others))
            )
            result = replace(result, warnings=(*result.warnings, warning))
        told.append(result)
    return told
