"""The road of one case: read, prepare, segment, split, classify, bring home.

`ready` is the half that needs no network and runs in other processes; `finish` is the half that does, and
runs where the networks are loaded. `run_case` is both.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aiene.geometry import Grid, RigidTransform, Volume, pull_labels
from aiene.ingest import Case, read_case
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.masks import find_mask, read_mask
from aiene.models.bundle import Bundle
from aiene.nodes import native_places, parse_fg_labels, split_nodes
from aiene.prepare import Prepared, Profile, Template, prepare, profile_named, read_template, to_native
from aiene.results import CaseArrays, CaseResult
from aiene.results.assemble import node_results, node_warnings

if TYPE_CHECKING:
    import torch

    from aiene.classify import Classifier
    from aiene.segment import Segmenter


_SOFT_HU = -200.0


@dataclass(frozen=True)
class Settings:
    """What a user chooses for a run.

    Parameters
    ----------
    ene_threshold : a node counts as ENE where its probability is over this.
    fg_labels : labels that hold nodes, as written on the command line.
    include_short_axes : measure long and short axes too.
    masks : folder of own masks on the native grid, which take the place of the segmenter.
    keep_prepared : keep the networks' input and the rigid transform.
    """

    ene_threshold: float
    fg_labels: str = "2"
    include_short_axes: bool = False
    masks: Path | None = None
    keep_prepared: bool = False


@dataclass(frozen=True)
class Preparation:
    """What a case is prepared with.

    Parameters
    ----------
    midline_x : x (LPS mm) of the body's middle on the template.
    """

    template: Template
    profile: Profile
    midline_x: float


@dataclass(frozen=True)
class Networks:
    """The two networks of a bundle, loaded; `segmenter` is None where own masks take its place."""

    segmenter: Segmenter | None
    classifier: Classifier


@dataclass(frozen=True, eq=False)
class Ready:
    """A case on the eve of the networks.

    Parameters
    ----------
    prepared : the networks' input and the way back.
    mask : the user's own label map on the native grid, where there is one.
    facts : input and geometry for `case.json`.
    """

    case: Case
    prepared: Prepared
    mask: Volume | None
    facts: dict[str, Any]
    warnings: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)


def load_preparation(bundle: Bundle) -> Preparation:
    """The profile and template of a bundle.

    Raises
    ------
    ModelError : the template cannot be used.
    """
    card = bundle.card
    profile = profile_named(card.profile, rescue=card.rescue_registration)
    template = read_template(bundle.template_file, profile, neck_centre_lps_mm=card.neck_centre_lps_mm)
    return Preparation(template, profile, _midline_x(template.volume))


def load_networks(bundle: Bundle, device: torch.device, *, own_masks: bool) -> Networks:
    """The networks of a bundle, on a device; the segmenter only where it is needed.

    Raises
    ------
    ModelError : a network cannot be loaded.
    """
    from aiene.classify import load_classifier
    from aiene.segment import load_segmenter

    chosen = bundle.card.segmenter
    segmenter = None
    if not own_masks:
        segmenter = load_segmenter(
            bundle.segmenter_folder,
            folds=chosen.folds,
            checkpoint=chosen.checkpoint,
            step_size=chosen.step_size,
            mirroring=chosen.mirroring,
            device=device,
            auxiliary=tuple(chosen.auxiliary.values()),
        )
    normalisation = bundle.card.classifier.normalisation
    classifier = load_classifier(bundle.classifier_folder, normalisation=normalisation, device=device)
    return Networks(segmenter, classifier)


def ready(case: Case, preparation: Preparation, masks: Path | None = None) -> Ready:
    """Read a case and make the networks' input of it; needs no network.

    Raises
    ------
    InputError : the CT, or the user's mask for it, cannot be used.
    CaseError : the CT holds no neck, or it cannot be found.
    """
    seconds: dict[str, float] = {}
    with _timed(seconds, "read"):
        ct = read_case(case)
        mask = None if masks is None else _own_mask(masks, case, ct.volume.grid)
        sha256 = content_sha256(case.files)
    with _timed(seconds, "prepare"):
        prepared = prepare(ct, preparation.template, preparation.profile)
    facts = {
        "input": {"kind": case.kind, "files": len(case.files), "sha256": sha256, **ct.source},
        "native": _grid_facts(prepared.native),
        "crop": _grid_facts(prepared.crop.grid),
        "to_native": prepared.to_native.matrix.tolist(),
        "registration": asdict(prepared.registration),
    }
    warnings = (*case.warnings, *ct.warnings, *prepared.warnings)
    return Ready(case, prepared, mask, facts, warnings, seconds)


def finish(
    at: Ready, networks: Networks, settings: Settings, *, labels: dict[str, int], midline_x: float
) -> tuple[CaseResult, CaseArrays]:
    """Segment, split, classify, and bring the result home onto the native CT.

    Parameters
    ----------
    at : the prepared case.
    labels : the bundle's label values by name.
    midline_x : x (LPS mm) of the template's midline.
    """
    seconds = dict(at.seconds)
    prepared = at.prepared
    with _timed(seconds, "segment"):
        found = _segment(at, networks)
    chosen = parse_fg_labels(settings.fg_labels)
    with _timed(seconds, "nodes"):
        nodes = split_nodes(found, fg_labels=chosen, axes=settings.include_short_axes)
    with _timed(seconds, "classify"):
        scores = networks.classifier.scores(prepared.crop, nodes)
    with _timed(seconds, "native"):
        node_map, places = native_places(
            nodes, prepared.crop.grid, prepared.native, prepared.to_native, midline_x=midline_x
        )
        native_labels = at.mask if at.mask is not None else to_native(found, prepared)
    result = CaseResult(
        case_id=at.case.case_id,
        status="ok" if nodes else "no_nodes",
        nodes=node_results(nodes, places, scores, settings.ene_threshold),
        has_primary=bool((found.array == labels["GTVp"]).any()),
        has_chosen=bool((found.array != 0).any() if chosen == "any" else np.isin(found.array, chosen).any()),
        warnings=(*at.warnings, *_mask_warnings(at, found), *node_warnings(nodes, places, scores)),
        notes=at.case.notes,
        seconds={stage: round(taken, 3) for stage, taken in seconds.items()},
        facts=at.facts,
    )
    kept = (in_patient(prepared.crop, prepared.to_native), prepared.to_native)
    return result, CaseArrays(native_labels, node_map, *(kept if settings.keep_prepared else (None, None)))


def run_case(
    case: Case, preparation: Preparation, networks: Networks, settings: Settings, *, labels: dict[str, int]
) -> tuple[CaseResult, CaseArrays]:
    """The whole road of one case, in this process.

    Raises
    ------
    InputError, CaseError : as `ready`.
    """
    at = ready(case, preparation, settings.masks)
    return finish(at, networks, settings, labels=labels, midline_x=preparation.midline_x)


def in_patient(crop: Volume, to_native: RigidTransform) -> Volume:
    """A volume of the template's space, laid where it is in the patient's."""
    affine = to_native.matrix @ crop.grid.affine
    return Volume(crop.array, Grid.from_affine(affine, crop.grid.size))


def _own_mask(folder: Path, case: Case, native: Grid) -> Volume:
    return read_mask(find_mask(folder, case.case_id), like=native, affine=case.affine)


def _midline_x(template: Volume) -> float:
    """x of the centre of mass of everything denser than air and fat: left and right balance there."""
    inside = np.argwhere(template.array > _SOFT_HU).mean(axis=0)
    return float(template.grid.points(inside)[0])


def _segment(at: Ready, networks: Networks) -> Volume:
    crop = at.prepared.crop
    if at.mask is not None:
        return pull_labels(at.mask, crop.grid, at.prepared.to_native)
    if networks.segmenter is None:
        raise ValueError("neither a segmenter nor a mask")
    return networks.segmenter(crop)


def _mask_warnings(at: Ready, found: Volume) -> list[str]:
    if at.mask is None:
        return []
    there = np.count_nonzero(at.mask.array) * at.mask.grid.voxel_volume_mm3
    here = np.count_nonzero(found.array) * found.grid.voxel_volume_mm3
    if there and here < 0.9 * there:
        return [f"only {here / there:.0%} of the given mask's volume lies in the crop that the networks see"]
    return []


def _grid_facts(grid: Grid) -> dict[str, Any]:
    return {
        "size_zyx": list(grid.size),
        "spacing_zyx_mm": list(grid.spacing),
        "origin_lps_mm": list(grid.origin),
        "direction_zyx_lps": [list(vector) for vector in grid.direction],
    }


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
