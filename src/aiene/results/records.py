"""The result of one case, and its JSON form, from which every table is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["ok", "no_nodes", "failed", "skipped"]

FORMAT = 2
"""1 told the size of a node with the layer of the watershed around it; such a result is made anew."""


@dataclass(frozen=True)
class NodeResult:
    """One lymph node, in numbers.

    Parameters
    ----------
    name : `GTVn_01`, ... in order of falling volume; its number is the value in `nodes.nii.gz`.
    number : the published numbering.
    pos, ene : probabilities of the classifier, 0 to 1; None where it could not judge the node.
    ene_classification : 1 where `ene` is over the bundle's threshold; None where `ene` is.
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

    @property
    def n_ene(self) -> int:
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
