"""One real CT that no training saw, through the road: what is found of what was planted, and what else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from aiene.errors import CaseError
from aiene.geometry.grid import Grid, RigidTransform, Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import NativeCt
from aiene.models.bundle import find_bundle
from aiene.nodes.node import CountingRule, Node, Score
from aiene.nodes.split import split_nodes
from aiene.phantom.lesions import Lesion
from aiene.pipeline import Networks, load_networks
from aiene.preprocess.preprocess import Preparation, Prepared, load_preparation, prepare
from aiene.preprocess.profile import OPEN
from tools.default_bundle.curve import false_pieces
from tools.default_bundle.disease import draw_disease, mimics
from tools.default_bundle.disturb import Disturbed
from tools.default_bundle.fit_classifier import MOST_UNKNOWN
from tools.default_bundle.hosts import Host
from tools.default_bundle.matching import Match, match
from tools.default_bundle.organs import NODE, PRIMARY
from tools.default_bundle.real_crops import mark
from tools.default_bundle.real_planting import Patient, RealNode, decoys, draw_nodes, planted

SEED = 7_000_000
CHANCE_DRAWS = 10
SAME_LEVEL_MM = 10.0
"""A neck level is two to five of these high and wide: so near in height, and in distance from the midline on
either side, a place is taken for one of the same level."""
SAME_TISSUE_HU = 10.0
"""Half of what muscle and fat of a neck differ from a node by, at most, after smoothing over 5 mm."""
ENE_SHARE = 0.3
Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class PlantedCt:
    """A kept-out CT with disease planted into it.

    Parameters
    ----------
    primary : None where there is none.
    enhanced : whether vessels are filled with contrast medium; None where nobody looked.
    """

    patient: Patient
    ct: Volume
    nodes: list[RealNode]
    primary: Lesion | None = None
    enhanced: bool | None = None


@dataclass(frozen=True)
class JudgedNode:
    """A planted node that lies in the crop, and what became of it.

    Parameters
    ----------
    short_axis_mm : of the planted node.
    voxels : so many of the CT's voxels in plane is the short axis.
    level : `Ib`, `II`, ...
    above_muscle_hu : of its solid part.
    dice : of its partner; 0 where it was missed.
    pos : of its partner by the classifier; 0 where it was missed or has no score.
    enhanced : whether the CT is; None where nobody looked.
    drawn : Dice of the truth itself, drawn on the CT's voxels: what a perfect hand would have.
    """

    short_axis_mm: float
    voxels: float
    level: str
    above_muscle_hu: float
    dice: float
    pos: float
    enhanced: bool | None = None
    drawn: float = 1.0


@dataclass(frozen=True)
class Judged:
    """One CT's found nodes against the planted ones.

    Parameters
    ----------
    nodes : every planted one that lies in the crop.
    false_pos : of each found node that is no planted tumour, nor lies by more than a third in the real
        patient's target, the classifier's `pos`; 0 without a score.
    false_ene : of these, how many it would count as AI-ENE.
    fragments : further parts of planted nodes that are found.
    primary : share of the planted primary that is called one; None without a primary outside the target.
    false_primaries : pieces called a primary that are none, by the rules for a false node.
    """

    nodes: tuple[JudgedNode, ...]
    false_pos: tuple[float, ...]
    false_ene: int
    fragments: int
    primary: float | None = None
    false_primaries: int = 0

    @property
    def false(self) -> int:
        """How many found nodes are false."""
        return len(self.false_pos)


@dataclass(frozen=True)
class Unplanted:
    """What is found in a CT as it is.

    Parameters
    ----------
    nodes : how many.
    volume : their voxels.
    hit : of these, in the high-dose target.
    chance : share that the same blobs would have there, at random places of the neck's soft tissue.
    chance_matched : the same, at places of each blob's own level and tissue, on either side.
    anywhere : whether a node lies by more than half in the target.
    """

    nodes: int
    volume: int
    hit: int
    chance: float
    chance_matched: float
    anywhere: bool


@dataclass(frozen=True, eq=False)
class Found:
    """What the road gives of one CT: its crop, the nodes, their scores, and what was segmented."""

    prepared: Prepared
    nodes: list[Node]
    scores: list[Score | None]
    labels: npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Road:
    """The bundle, loaded."""

    preparation: Preparation
    networks: Networks
    rule: CountingRule

    def look(self, ct: Volume) -> Found:
        """Every node that is found in a CT.

        Raises
        ------
        CaseError : no neck.
        """
        prepared = prepare(NativeCt(ct, 2), self.preparation.template, self.preparation.profile)
        if self.networks.segmenter is None:
            raise ValueError("a bundle without a segmenter")
        labels = self.networks.segmenter(prepared.crop)
        nodes = split_nodes(labels, fg_labels=(2,), axes=False)
        scores = self.networks.classifier.scores(prepared.crop, nodes)
        return Found(prepared, nodes, scores, labels.array)


def load_road(name: str) -> Road:
    """A bundle's road on one thread of the CPU."""
    torch.set_num_threads(1)
    bundle = find_bundle(name)
    networks = load_networks(bundle, torch.device("cpu"), own_masks=False)
    return Road(load_preparation(bundle), networks, bundle.card.rule)


def planted_cts(patient: Patient, number: int, plantings: int) -> Iterable[PlantedCt]:
    """So many sets of nodes in one patient, the number of whom sets the seed."""
    for k in range(plantings):
        rng = np.random.default_rng((SEED, number, k))
        nodes = draw_nodes(patient, rng, int(rng.integers(1, 7)), ENE_SHARE)
        ct = planted(patient, [*(n.lesion for n in nodes), *decoys(patient, rng)], rng)
        yield PlantedCt(patient, ct, nodes)


def diseased_cts(host: Host, number: int, plantings: int) -> Iterable[PlantedCt]:
    """The same by real numbers, outside the high-dose target, with primaries and mimics."""
    patient = host.sparing_target()
    for k in range(plantings):
        rng = np.random.default_rng((SEED + 3, number, k))
        disease = draw_disease(patient, rng, enhanced=host.enhanced)
        extra = mimics(patient, rng, enhanced=host.enhanced)
        ct = planted(patient, [*extra, *disease.lesions], rng, every_lobe=True)
        yield PlantedCt(patient, ct, list(disease.nodes), disease.primary, host.enhanced)


def judge(road: Road, case: PlantedCt, change: Callable[[Volume], Disturbed] | None = None) -> Judged | None:
    """What is found of what was planted; None where the road found no neck."""
    ct, back = change(case.ct) if change else (case.ct, RigidTransform())
    try:
        found = road.look(ct)
    except CaseError:
        return None
    place = replace(found.prepared, to_native=back.after(found.prepared.to_native))
    numbers = _numbers(case.nodes, place)
    matched = _matched(found, numbers)
    target = _on_crop(case.patient.target, case.patient, place)
    there = [k for k in range(1, len(case.nodes) + 1) if (numbers == k).any()]
    primary = _drawn(case.primary, place) & (numbers == 0)
    nowhere = target | primary
    false = [f for f in matched.false if nowhere[found.nodes[f].mask].mean() <= MOST_UNKNOWN]
    scores = [found.scores[f] for f in false]
    judged = [
        _judged(case, case.nodes[k - 1], matched.dice.get(k, 0.0), _pos_of(k, matched, found.scores))
        for k in there
    ]
    hand = [drawn_on_the_ct(case.nodes[k - 1].lesion, numbers == k, case.ct.grid, place) for k in there]
    return Judged(
        tuple(replace(node, drawn=dice) for node, dice in zip(judged, hand, strict=True)),
        tuple(0.0 if s is None else s.pos for s in scores),
        sum(s is not None and road.rule.is_ene(s.pos, s.ene) for s in scores),
        len(matched.fragments),
        _covered_share(primary, target, found.labels),
        len(false_pieces(found.labels == PRIMARY, primary, target | (numbers > 0))[1]),
    )


def _judged(case: PlantedCt, node: RealNode, dice: float, pos: float) -> JudgedNode:
    _, y, x = case.patient.ct.grid.spacing
    above = node.lesion.hu - case.patient.muscle_hu
    across = node.short_axis_mm / max(y, x)
    return JudgedNode(node.short_axis_mm, across, node.level, above, dice, pos, case.enhanced)


def drawn_on_the_ct(lesion: Lesion, truth: Mask, native: Grid, place: Prepared) -> float:
    """Dice of a lesion drawn voxel by voxel on the CT (a voxel's centre lies in it), against it on the crop.

    Coarse voxels alone cost a small node this much: a voxel is drawn where its centre lies in the lesion.
    """
    labels = np.zeros(native.size, dtype=np.uint8)
    on_the_ct = replace(place, crop=Volume(labels, native), to_native=RigidTransform())
    mark(labels, np.zeros_like(labels), lesion, on_the_ct, 0)
    hand = pull_labels(Volume(labels, native), place.crop.grid, world=place.to_native).array > 0
    return float(2 * np.count_nonzero(hand & truth) / (np.count_nonzero(hand) + np.count_nonzero(truth)))


def _drawn(lesion: Lesion | None, place: Prepared) -> Mask:
    """Where a lesion lies on the crop."""
    labels = np.zeros(place.crop.grid.size, dtype=np.uint8)
    if lesion is not None:
        mark(labels, np.zeros_like(labels), lesion, place, 0)
    return labels > 0


def _covered_share(primary: Mask, target: Mask, labels: npt.NDArray[np.uint8]) -> float | None:
    """Share of a primary that is called one; None where it lies by more than a third in the target."""
    if not primary.any() or target[primary].mean() > MOST_UNKNOWN:
        return None
    return float((labels[primary] == PRIMARY).mean())


def blank_places(road: Road, patient: Patient, number: int) -> tuple[int, int]:
    """The planting done without a node: its places, and how many hold a node that was not found before."""
    rng = np.random.default_rng((SEED + 1, number))
    nodes = draw_nodes(patient, rng, 5, ENE_SHARE)
    ct = planted(patient, [n.lesion for n in nodes], rng, blank=True)
    try:
        after, before = road.look(ct), road.look(_plain(patient))
    except CaseError:
        return 0, 0
    return len(nodes), sum(_covered(n, after) and not _covered(n, before) for n in nodes)


def unplanted(road: Road, patient: Patient, number: int) -> tuple[Unplanted, Unplanted] | None:
    """The CT as it is: does what is found lie where the doctors saw tumour, more than by chance?

    Returns
    -------
    Of every found node, and of those whose `pos` is high enough to count; None without a neck.
    """
    try:
        found = road.look(_plain(patient))
    except CaseError:
        return None
    target = _on_crop(patient.target, patient, found.prepared)
    scored = zip(found.nodes, found.scores, strict=True)
    counting = [n for n, s in scored if s is not None and s.pos >= road.rule.pos_from]
    crop = found.prepared.crop
    return _on_target(found.nodes, crop, target, number), _on_target(counting, crop, target, number)


def _on_target(nodes: list[Node], crop: Volume, target: Mask, number: int) -> Unplanted:
    rng, alike = np.random.default_rng((SEED + 2, number)), np.random.default_rng((SEED + 4, number))
    return Unplanted(
        len(nodes),
        sum(int(n.mask.sum()) for n in nodes),
        sum(int(target[n.mask].sum()) for n in nodes),
        _by_chance(nodes, target, soft_places(crop), rng),
        _by_chance(nodes, target, alike_places(crop), alike),
        any(target[n.mask].mean() > 0.5 for n in nodes),
    )


def _numbers(nodes: Sequence[RealNode], place: Prepared) -> Numbers:
    shape = place.crop.grid.size
    labels, numbers = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.uint8)
    for number, node in enumerate(nodes, start=1):
        mark(labels, numbers, node.lesion, place, number)
    return numbers


def _matched(found: Found, numbers: Numbers) -> Match:
    return match([n.mask for n in found.nodes], numbers, segmented=found.labels == NODE)


def _pos_of(number: int, matched: Match, scores: Sequence[Score | None]) -> float:
    if number not in matched.partner:
        return 0.0
    score = scores[matched.partner.index(number)]
    return 0.0 if score is None else score.pos


def _covered(node: RealNode, found: Found) -> bool:
    return 1 in _matched(found, _numbers([node], found.prepared)).dice


def _plain(patient: Patient) -> Volume:
    """The CT as it was read."""
    return patient.ct.with_array(np.rint(patient.ct.array).astype(np.int16))


Places = Callable[[Mask], npt.NDArray[np.int64]]
"""Where a blob, given as its mask, might as well lie: voxels (n, 3)."""


def soft_places(crop: Volume) -> Places:
    """Anywhere in the soft tissue of the neck."""
    places = np.argwhere(_soft(crop))
    return lambda mask: places


def alike_places(crop: Volume) -> Places:
    """In soft tissue of the blob's height and distance from the midline, on either side, and as bright.

    A finder of anything bright beside the great vessels lies in the target more often than by chance anywhere
    in the neck; it does not by this one. Where no such place is, the blob's own middle.
    """
    low, high = OPEN.window
    step = np.array(crop.grid.spacing)
    smooth = ndimage.uniform_filter(crop.array, size=[max(1, round(5.0 / mm)) for mm in step])
    places = np.argwhere(_soft(crop))
    bright = smooth[tuple(places.T)]
    midline = (crop.array.shape[2] - 1) / 2  # the crop lies so in the template, which is symmetric
    aside = np.abs(places[:, 2] - midline) * step[2]

    def alike(mask: Mask) -> npt.NDArray[np.int64]:
        voxels = np.argwhere(mask)
        middle = voxels.mean(axis=0)
        near = np.abs(places[:, 0] - middle[0]) * step[0] <= SAME_LEVEL_MM
        near &= np.abs(aside - abs(middle[2] - midline) * step[2]) <= SAME_LEVEL_MM
        near &= np.abs(bright - crop.array[mask].mean()) * (high - low) <= SAME_TISSUE_HU
        fitting: npt.NDArray[np.int64] = places[near]
        return fitting if len(fitting) else np.round(middle).astype(np.int64)[None]

    return alike


def _soft(crop: Volume) -> Mask:
    soft: Mask = ndimage.binary_erosion((crop.array > 0.35) & (crop.array < 0.75))
    return soft


def _by_chance(nodes: list[Node], target: Mask, places_of: Places, rng: np.random.Generator) -> float:
    shares, weights = [0.0], [1e-9]
    for node in nodes:
        places = places_of(node.mask)
        voxels = np.argwhere(node.mask)
        voxels = voxels - voxels.mean(axis=0).round().astype(int)
        for _ in range(CHANCE_DRAWS):
            moved = voxels + places[int(rng.integers(len(places)))]
            inside = ((moved >= 0) & (moved < np.array(target.shape))).all(axis=1)
            shares.append(float(target[tuple(moved[inside].T)].sum() / len(voxels)))
            weights.append(len(voxels))
    return float(np.average(shares, weights=weights))


def _on_crop(mask: Mask, patient: Patient, prepared: Prepared) -> Mask:
    on_grid = Volume(mask.astype(np.uint8), patient.ct.grid)
    return pull_labels(on_grid, prepared.crop.grid, world=prepared.to_native).array > 0
