"""Inference of one case: read, preprocess, segment, split, classify, map back to the CT.

`preprocess_case` needs no network and runs in other processes; `infer_case` runs where the networks are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from aiene.device import keep_freed_memory
from aiene.errors import Said, UsageError, joined, ours, said
from aiene.geometry.grid import Grid, RigidTransform, Triple, Volume
from aiene.geometry.resample import pull_labels
from aiene.hashing import joined_sha256
from aiene.ingest.case import Case, NativeCt
from aiene.ingest.fingerprint import content_sha256, voxels_sha256
from aiene.ingest.masks import MaskLabels, node_labels, own_mask, own_mask_files, read_mask
from aiene.ingest.read import read_case
from aiene.models.bundle import LABEL_VALUES, Bundle, OperatingPoint
from aiene.nodes.node import GTVN, GTVP, CountingRule, FgLabels, check_known, contours, parse_fg_labels
from aiene.nodes.placement import native_nodes
from aiene.nodes.split import join_nodes, split_nodes
from aiene.preprocess.preprocess import Preparation, Prepared, prepare, to_native
from aiene.preprocess.profile import Grade as RegistrationGrade
from aiene.results.records import (
    CaseArrays,
    CaseResult,
    contour_warnings,
    node_results,
    node_warnings,
    threshold_warnings,
)

if TYPE_CHECKING:
    import torch

    from aiene.classify.classifier import Classifier
    from aiene.segment.engines import Grade
    from aiene.segment.segmenter import Segmenter


Joins = Sequence[tuple[Triple, Triple]]
OnStage = Callable[[str], None]
"""Told of each stage of a case (one of `STAGES`) when it ends."""

STAGES = ("read", "prepare", "segment", "nodes", "classify", "native")
_NO_PRIMARY = said("the model has no label for the primary tumour, so none was looked for")
_COARSE_MM = 3.0
"""Voxels in plane from which on extension is not to be seen: a node's capsule is under 1 mm thick, what
breaks through it some mm, and the classifier reads voxels of 1 mm."""
_FAST = said("laid onto the template with --registration fast")
_WHOLE = 0.995
"""Share of the contours in the crop from which on a warning would round to 100 %."""


@dataclass(frozen=True)
class Settings:
    """What a user chooses for a run.

    Parameters
    ----------
    ene_threshold, pos_from : see `CountingRule`.
    fg_labels : labels that hold nodes, as written on the command line; None: those that the bundle, or the
        convention for own masks, says.
    include_short_axes : measure long and short axes too.
    masks : folder of own masks on the native grid, which take the place of the segmenter.
    keep_prepared : keep the networks' input and the rigid transform.
    operating_point : how readily the segmenter calls something a node; None: as its weights do.
    engine : what computes the segmenter, see `segment.engines`.
    registration : how the published registration is computed, see `preprocess.profile`.
    """

    ene_threshold: float
    fg_labels: str | None = None
    include_short_axes: bool = False
    masks: Path | None = None
    keep_prepared: bool = False
    pos_from: float = 0.0
    operating_point: OperatingPoint | None = None
    engine: Grade = "exact"
    registration: RegistrationGrade = "exact"

    @property
    def rule(self) -> CountingRule:
        """Which nodes count."""
        return CountingRule(self.ene_threshold, self.pos_from)


@dataclass(frozen=True)
class Networks:
    """The two networks of a bundle, loaded; `segmenter` is None where own masks take its place."""

    segmenter: Segmenter | None
    classifier: Classifier


@dataclass(frozen=True, eq=False)
class PreprocessedCase:
    """A case preprocessed: what the networks need of it.

    Parameters
    ----------
    prepared : the networks' input and the way back.
    mask : the user's own label map on the native grid, where there is one.
    facts : input and geometry for `case.json`.
    notes : what of the source's headers DICOM objects will not repeat.
    mask_file : what messages call the mask.
    """

    case: Case
    prepared: Prepared
    mask: Volume | None
    facts: dict[str, Any]
    warnings: tuple[Said, ...]
    seconds: dict[str, float] = field(default_factory=dict)
    notes: tuple[Said, ...] = ()
    mask_file: Path = Path("the mask")


def settings_for(
    bundle: Bundle,
    *,
    ene_threshold: float | None = None,
    pos_from: float | None = None,
    operating_point: OperatingPoint | None = None,
    fg_labels: str | None = None,
    include_short_axes: bool = False,
    masks: Path | None = None,
    keep_prepared: bool = False,
    own_masks: bool | None = None,
    engine: Grade = "exact",
    registration: RegistrationGrade = "exact",
) -> Settings:
    """What a user chose for a run with a bundle, checked; what was not chosen is the bundle's.

    Parameters
    ----------
    ene_threshold, pos_from, operating_point, fg_labels, include_short_axes, masks, keep_prepared, engine,
        registration : see `Settings`.
    own_masks : own masks take the place of the segmenter; None: where there is a folder of them.

    Raises
    ------
    UsageError : a threshold that is no probability, labels that the bundle cannot give, or an operating point
        that it does not have.
    """
    rule = CountingRule(
        bundle.card.rule.ene_threshold if ene_threshold is None else ene_threshold,
        bundle.card.rule.pos_from if pos_from is None else pos_from,
    )
    labels = None if fg_labels is None else parse_fg_labels(fg_labels)
    segmented = masks is None if own_masks is None else not own_masks
    if fg_labels is not None and labels is not None and segmented:
        check_known(fg_labels, labels, {name: LABEL_VALUES[name] for name in bundle.card.labels})
    there = bundle.card.segmenter.operating_points
    if operating_point is not None and not segmented:
        raise UsageError("--operating-point is the segmenter's, and --masks takes its place: leave one out.")
    if operating_point is not None and operating_point not in there:
        known = said("it has {}", joined(", ", map(ours, there))) if there else ours("it has none")
        raise UsageError(
            said(
                "--operating-point {}: the model bundle {} has no such point "
                "({}); leave the option out, or choose another bundle.",
                ours(operating_point),
                ours(bundle.card.name),
                known,
            )
        )
    if registration == "fast" and bundle.card.profile != "published":
        raise UsageError(
            said(
                "--registration fast is for bundles of the published profile; {} registers by "
                "the open one, which is quick already: leave it out.",
                ours(bundle.card.name),
            )
        )
    return Settings(
        rule.ene_threshold,
        fg_labels,
        include_short_axes,
        masks,
        keep_prepared,
        rule.pos_from,
        operating_point,
        engine,
        registration,
    )


def load_networks(
    bundle: Bundle,
    device: torch.device,
    *,
    own_masks: bool,
    operating_point: OperatingPoint | None = None,
    engine: Grade = "exact",
) -> Networks:
    """The networks of a bundle, on a device; the segmenter only where it is needed.

    Parameters
    ----------
    operating_point : of the segmenter, one of its card's; None: as its weights are.
    engine : what computes the segmenter.

    Raises
    ------
    ModelError : a network cannot be loaded.
    """
    from aiene.classify.classifier import load_bundle_classifier
    from aiene.segment.segmenter import load_bundle_segmenter

    keep_freed_memory()
    segmenter = None if own_masks else load_bundle_segmenter(bundle, device, operating_point, engine)
    return Networks(segmenter, load_bundle_classifier(bundle, device))


def preprocess_case(
    case: Case,
    preparation: Preparation,
    masks: Path | None = None,
    *,
    room: Path | None = None,
    on_stage: OnStage = lambda _: None,
) -> PreprocessedCase:
    """Read a case and make the networks' input of it; needs no network.

    Parameters
    ----------
    room : where zip archives are unpacked; None is the system's place for temporary files.

    Raises
    ------
    InputError : the CT, or the user's mask for it, cannot be used.
    CaseError : the CT holds no neck, or it cannot be found.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read", on_stage):
        ct = read_case(case, room=room)
        own = own_mask(case, masks)
        mask = None if own is None else read_mask(own, like=ct.volume.grid, affine=case.affine)
        sha256 = content_sha256(case.files)
        source = {"kind": case.kind, "files": len(case.files), "sha256": sha256}
        content = joined_sha256(sha256, content_sha256(own_mask_files(case, masks)))
    at = preprocess_ct(case, ct, preparation, mask, source=source, content=content, on_stage=on_stage)
    return replace(at, mask_file=own or at.mask_file, seconds={**seconds, **at.seconds})


def preprocess_ct(
    case: Case,
    ct: NativeCt,
    preparation: Preparation,
    mask: Volume | None,
    *,
    source: dict[str, Any],
    content: str = "",
    on_stage: OnStage = lambda _: None,
) -> PreprocessedCase:
    """Make the networks' input of a CT that is read; needs no network.

    Parameters
    ----------
    mask : own label map on the CT's grid, in the place of the segmenter's.
    source : how the CT came, for the record.
    content : hash of the input's files; of the voxels where there are none.

    Raises
    ------
    CaseError : the CT holds no neck, or it cannot be found.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "prepare", on_stage):
        prepared = prepare(ct, preparation.template, preparation.profile)
    voxels = voxels_sha256(ct.volume)
    facts = {
        "input": {**source, "voxels_sha256": voxels, **ct.source},
        "content_sha256": content or voxels,
        "native": prepared.native.facts,
        "crop": prepared.crop.grid.facts,
        "to_native": prepared.to_native.matrix.tolist(),
        "registration": asdict(prepared.registration),
    }
    warnings = (*case.warnings, *ct.warnings, *_coarse(ct.volume.grid), *prepared.warnings)
    return PreprocessedCase(case, prepared, mask, facts, warnings, seconds, ct.notes)


def infer_case(
    at: PreprocessedCase,
    networks: Networks,
    settings: Settings,
    *,
    labels: dict[str, int],
    midline_x: float,
    joins: Joins = (),
    on_stage: OnStage = lambda _: None,
) -> tuple[CaseResult, CaseArrays]:
    """Segment, split, classify, and bring the result home onto the native CT.

    Parameters
    ----------
    at : the prepared case.
    labels : the bundle's labels by name; without GTVp, nobody looked for a primary tumour.
    midline_x : x (LPS mm) of the template's midline.
    joins : pairs of points (LPS mm on the native CT) whose nodes a reader counts as one.
    """
    seconds = dict(at.seconds)
    prepared = at.prepared
    told = None if settings.fg_labels is None else parse_fg_labels(settings.fg_labels)
    with _timed(seconds, "segment", on_stage):
        if at.mask is not None:
            marked = _of_mask(at, at.mask, told)
        else:
            marked = _of_network(at, networks, labels, told)
    with _timed(seconds, "nodes", on_stage):
        nodes = split_nodes(marked.on_crop, fg_labels=(GTVN,), axes=settings.include_short_axes)
        if joins:
            on_crop = prepared.to_native.inverse()
            pairs = [(on_crop.apply(a), on_crop.apply(b)) for a, b in joins]
            inside = marked.on_crop.with_array(marked.on_crop.array == GTVN)
            nodes = join_nodes(nodes, pairs, inside, axes=settings.include_short_axes)
    with _timed(seconds, "classify", on_stage):
        scores = networks.classifier.scores(prepared.crop, nodes)
    with _timed(seconds, "native", on_stage):
        drawn = marked.native.with_array(marked.native.array == GTVN)
        home = native_nodes(nodes, prepared.crop.grid, drawn, prepared.to_native, midline_x=midline_x)
    found = node_results(
        nodes,
        home.places,
        scores,
        settings.rule,
        sides_known=bool(at.facts.get("input", {}).get("orientation_known", True)),
    )
    result = CaseResult(
        case_id=at.case.case_id,
        status="ok" if nodes else "no_nodes",
        nodes=found,
        has_primary=marked.holds(GTVP) if at.mask is not None or "GTVp" in labels else None,
        has_chosen=marked.holds(GTVN),
        warnings=(
            *at.warnings,
            *marked.choice.warnings,
            *_coverage_warnings(at, home.in_crop),
            *node_warnings(nodes, home.places, scores),
            *contour_warnings(home.no_node),
            *threshold_warnings(found, settings.rule, prepared.ene_spread),
        ),
        notes=(
            *at.case.notes,
            *at.notes,
            *marked.choice.notes,
            *([_FAST] if settings.registration == "fast" else []),
        ),
        seconds={stage: round(taken, 3) for stage, taken in seconds.items()},
        facts=at.facts,
    )
    kept = (in_patient(prepared.crop, prepared.to_native), prepared.to_native)
    return result, CaseArrays(marked.native, home.map, *(kept if settings.keep_prepared else (None, None)))


@dataclass(frozen=True, eq=False)
class _Marked:
    """Nodes and primary tumour in the values of `labels.nii.gz`, on the crop and on the native CT."""

    on_crop: Volume
    native: Volume
    choice: MaskLabels

    def holds(self, value: int) -> bool:
        """Whether any voxel has a value; a part of an own mask may lie outside the crop."""
        return any(bool((volume.array == value).any()) for volume in (self.on_crop, self.native))


def _of_network(
    at: PreprocessedCase, networks: Networks, labels: dict[str, int], told: FgLabels | None
) -> _Marked:
    """What the segmenter found: 1 for GTVp and 2 for GTVn, whatever its own values are."""
    if networks.segmenter is None:
        raise ValueError("neither a segmenter nor a mask")
    crop = at.prepared.crop
    if networks.segmenter.takes_hu:
        if at.prepared.crop_hu is None:
            raise ValueError("a segmenter that takes HU, and a profile that does not keep it")
        crop = at.prepared.crop_hu
    found = networks.segmenter(crop)
    chosen = (GTVN,) if told is None else told
    on_crop = found.with_array(contours(found.array, chosen, primary=GTVP))
    told_of = (*(() if "GTVp" in labels else (_NO_PRIMARY,)), *networks.segmenter.engine.notes)
    return _Marked(on_crop, to_native(on_crop, at.prepared), MaskLabels(chosen, notes=told_of))


def _of_mask(at: PreprocessedCase, mask: Volume, told: FgLabels | None) -> _Marked:
    """The user's own voxels, as they are on the native CT.

    Raises
    ------
    InputError : which of its labels are nodes cannot be told.
    """
    choice = node_labels(at.mask_file, mask.array, told)
    native = mask.with_array(contours(mask.array, choice.nodes))
    on_crop = pull_labels(native, at.prepared.crop.grid, at.prepared.to_native)
    return _Marked(on_crop, native, choice)


def in_patient(crop: Volume, to_native: RigidTransform) -> Volume:
    """A volume of the template's space, laid where it is in the patient's."""
    affine = to_native.matrix @ crop.grid.affine
    return Volume(crop.array, Grid.from_affine(affine, crop.grid.size))


def _coarse(native: Grid) -> tuple[Said, ...]:
    """Whether ENE can be seen at all: the middle of the three voxel spacings is one in plane, as CTs go."""
    in_plane = sorted(native.spacing)[1]
    if in_plane < _COARSE_MM:
        return ()
    return (
        said(
            "voxels of {:.1f} mm in plane: extranodal extension cannot be seen at this resolution, so "
            "the ENE probabilities are not reliable",
            in_plane,
        ),
    )


def _coverage_warnings(at: PreprocessedCase, in_crop: float) -> list[Said]:
    """Own contours may reach beyond the crop: they are measured whole, but the classifier sees a part."""
    if at.mask is None or in_crop >= _WHOLE:
        return []
    return [
        said(
            "only {:.0%} of the given node contours is in the crop that the networks see; sizes "
            "are of the whole contours, probabilities of the part within",
            in_crop,
        )
    ]


@contextmanager
def _timed(seconds: dict[str, float], stage: str, on_stage: OnStage) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
    on_stage(stage)


OnProgress: TypeAlias = Callable[[int, int, str], object]
"""Told how many of how many are done, and in words what was done last."""


def follower(progress: bool | OnProgress, *, unit: str) -> OnProgress:
    """The function that a long call tells its steps to.

    Parameters
    ----------
    progress : False shows nothing; True shows a tqdm bar, which a notebook draws as its own; or the caller's
        function `(done, total, words)`, called after each step.
    unit : what is counted: `case` or `stage`.
    """
    if progress is True:
        return _Bar(unit)
    return progress or (lambda _done, _total, _words: None)


def by_case(progress: bool | OnProgress, on_case: Callable[[Any], None]) -> Callable[[Any], None]:
    """What a run of many cases calls after each: `follower` in words, then `on_case` with all that is known.

    Both get it from a `cohort.Progress`.
    """
    tell = follower(progress, unit="case")

    def told(step: Any) -> None:
        tell(step.number, step.total, f"{step.result.case_id}: {step.result.status}")
        on_case(step)

    return told


class _Bar:
    """A tqdm bar that appears with the first step and is closed by the last; an error leaves it as it is."""

    def __init__(self, unit: str) -> None:
        self._unit = unit
        self._bar: Any = None

    def __call__(self, done: int, total: int, words: str) -> None:
        from tqdm.auto import tqdm

        if self._bar is None:
            self._bar = tqdm(total=total, desc="AI-ENE", unit=self._unit)
        self._bar.set_postfix_str(words, refresh=False)
        self._bar.update(done - self._bar.n)
        if done >= total:
            self._bar.close()
