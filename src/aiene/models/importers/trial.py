"""What somebody else's segmenter is, before it becomes a bundle: its labels, its input, and a trial of it.

Which labels are lymph nodes and which the primary tumour is told by name, or as the user says. The crops of
the trial are phantoms made from fixed seeds: what was planted into them is known, and they are the same on
every machine. They say whether a network can have been trained on such images and whether it answers at all,
nothing about how well it finds nodes in people.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from aiene.errors import ModelError
from aiene.geometry.grid import Grid, Volume, triple
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.preprocess.preprocess import fixed_window
from aiene.preprocess.profile import OPEN
from aiene.segment.plans import Foreground, Plan
from aiene.segment.segmenter import Segmenter

Intensities = Literal["crop", "hu"]

SEEDS = (700_001, 700_002)
"""Persons that no training of ours uses."""

_SIZE = (48, 128, 128)
_WIDEST = 30.0
"""How many times wider, or narrower, the training's foreground may be than the crops' nodes and tumours.

These span 0.3 of [0, 1] or 130 HU; a plan of HU (100 to 2,500) on [0, 1] is at least 300 times wider, one of
[0, 1] on HU as many times narrower. Halfway between (on a logarithmic scale) there is room for both."""


@dataclass(frozen=True, eq=False)
class TrialCrop:
    """A phantom's neck on the networks' lattice.

    Parameters
    ----------
    hu : float32.
    labels : uint8, 1 GTVp, 2 GTVn.
    """

    hu: Volume
    labels: npt.NDArray[np.uint8]

    def fed(self, intensities: Intensities) -> Volume:
        """As the road feeds it to a segmenter."""
        return self.hu if intensities == "hu" else self.hu.with_array(fixed_window(self.hu.array))


@lru_cache(maxsize=len(SEEDS))
def trial_crop(seed: int) -> TrialCrop:
    """The neck of that seed, with a primary tumour and four to six nodes."""
    grid = Grid(_SIZE, OPEN.crop_spacing, (0.0, 0.0, 0.0))
    wishes = PhantomSettings(grid=grid, nodes=(4, 6), primary_share=1.0, table=False)
    phantom = make_phantom(seed, wishes)
    return TrialCrop(phantom.ct.with_array(phantom.ct.array.astype(np.float32)), phantom.labels.array)


def fitting_intensities(plan: Plan, wanted: Intensities | None) -> Intensities:
    """What the segmenter is to be fed, by the intensities of its training's foreground.

    Parameters
    ----------
    wanted : as the user says; None: whichever fits. Without intensities in the plan there is nothing to
        compare: the user's word, or the profile's crop.

    Raises
    ------
    ModelError : the plan's intensities fit neither, or not what the user says.
    """
    if plan.foreground is None:
        return wanted or "crop"
    kinds: tuple[Intensities, ...] = ("crop", "hu")
    fitting = [kind for kind in kinds if _fits(plan.foreground, *_span(kind))]
    if wanted in fitting or (wanted is None and fitting):
        return wanted or fitting[0]
    trained = plan.foreground
    spans = " and ".join(
        f"{low:.3g} to {high:.3g} {'in HU' if kind == 'hu' else 'scaled to [0, 1]'}"
        for kind in ("crop", "hu")
        for low, _, high in [_span(kind)]
    )
    problem = (
        f"its training saw tumour at {trained.percentile_00_5:.4g} to {trained.percentile_99_5:.4g} "
        f"(mean {trained.mean:.4g}), where a crop has {spans}"
    )
    remedy = "train it on crops of this profile, or on HU"
    if fitting:
        remedy = f"leave --intensities {wanted} out: {fitting[0]} is what fits"
    raise ModelError(plan.file, problem, remedy)


def _span(kind: Intensities) -> tuple[float, float, float]:
    """Percentiles 0.5, 50 and 99.5 of tumour and nodes in the trial crops."""
    values = [crop.fed(kind).array[crop.labels > 0] for crop in map(trial_crop, SEEDS)]
    return triple(np.percentile(np.concatenate(values), (0.5, 50, 99.5)))


def _fits(trained: Foreground, low: float, middle: float, high: float) -> bool:
    width = trained.percentile_99_5 - trained.percentile_00_5
    near = trained.percentile_00_5 - width <= middle <= trained.percentile_99_5 + width
    return near and 1 / _WIDEST <= width / (high - low) <= _WIDEST


def try_out(segmenter: Segmenter, file: Path) -> str | None:
    """What is wrong with a segmenter's answer on the trial crops, if it is of one class on all of them.

    Parameters
    ----------
    file : the checkpoint, for messages.

    Raises
    ------
    ModelError : its answer is no numbers.
    """
    only: set[int] = set()
    for seed in SEEDS:
        crop = trial_crop(seed)
        z, y, x = here = _around_the_largest(crop, segmenter.plan)
        image = crop.fed("hu" if segmenter.takes_hu else "crop")
        part = np.ascontiguousarray(image.array[here])
        size = (part.shape[0], part.shape[1], part.shape[2])
        cut = Volume(part, image.grid.crop((z.start, y.start, x.start), size))
        scores = segmenter.probabilities(cut)
        if not np.isfinite(scores).all():
            problem = "its answer on a synthetic neck holds values that are not numbers"
            raise ModelError(file, problem, "download the model again")
        only |= set(np.unique(scores.argmax(axis=0)).tolist())
        if len(only) > 1:
            return None
    name = next(name for name, value in segmenter.plan.labels.items() if value in only)
    return f"its answer on {len(SEEDS)} synthetic necks is nothing but {name}"


def _around_the_largest(crop: TrialCrop, plan: Plan) -> tuple[slice, slice, slice]:
    """The part of the crop that one patch of the plan sees, around the nodes' middle voxel: one tile."""
    nodes = np.argwhere(crop.labels == 2)
    middle = nodes[len(nodes) // 2]
    seen = [n * mm for n, mm in zip(plan.patch, plan.spacing, strict=True)]  # along the plan's own axes
    parts = []
    for axis, size in enumerate(crop.labels.shape):
        length = min(size, max(8, int(seen[plan.backward[axis]] / crop.hu.grid.spacing[axis])))
        start = min(max(0, int(middle[axis]) - length // 2), size - length)
        parts.append(slice(start, start + length))
    return parts[0], parts[1], parts[2]


NO_PRIMARY = "none"
"""Given as the primary's label: the network knows none."""

_NODES = {
    *("gtvn", "gtvnd", "gtvln", "gtvnode", "gtvnodes", "gtvnodal", "gtvlymphnode", "gtvlymphnodes"),
    *("node", "nodes", "nodal", "ln", "lns", "lymphnode", "lymphnodes", "lymphadenopathy", "lymphknoten"),
}
_PRIMARY = {
    *("gtvp", "gtvpt", "gtvt", "gtvprimary", "gtvtumor", "gtvtumour"),
    *("primary", "primarius", "tumor", "tumour", "primarytumor", "primarytumour"),
}
_NEITHER = {
    *("benign", "normal", "healthy", "negative", "reactive", "non", "no", "not", "bed"),
    *("level", "levels", "station", "stations", "ctv", "ptv", "itv", "elective", "oar"),
}
"""Words that make of a node, or tumour, something that is not to be counted: anatomy, margins, the benign."""


@dataclass(frozen=True)
class ChosenLabels:
    """What is taken from a network.

    Parameters
    ----------
    labels : value of the network's label for `GTVn` and, where it has one, `GTVp`.
    names : how the network calls them.
    left_out : its other labels, which never count.
    """

    labels: dict[str, int]
    names: dict[str, str]
    left_out: tuple[str, ...]

    def __str__(self) -> str:
        words = [f"nodes are its label {self.labels['GTVn']} ({self.names['GTVn']})"]
        if "GTVp" in self.labels:
            words.append(f"the primary tumour is its label {self.labels['GTVp']} ({self.names['GTVp']})")
        else:
            words.append("it has no label for the primary tumour, so none is looked for")
        if self.left_out:
            words.append(f"left out: {', '.join(self.left_out)}")
        return "; ".join(words)


def chosen_labels(
    source: Path, given: Mapping[str, int], *, nodes: str | None = None, primary: str | None = None
) -> ChosenLabels:
    """The labels of nodes and primary tumour among a network's.

    Parameters
    ----------
    source : the model, for messages.
    given : its labels by name, background included.
    nodes, primary : name or value of the label, as the user says; None: found by name. `none`: no primary.

    Raises
    ------
    ModelError : no name says which label is the nodes, or several do; no such label; one label for both.
    """
    labels = {name: value for name, value in given.items() if value != 0}
    of_nodes = None if nodes is None else _asked(source, labels, nodes, "--nodes-label")
    of_primary = None
    if primary is not None and primary != NO_PRIMARY:
        of_primary = _asked(source, labels, primary, "--primary-label")
    if of_nodes is None:
        rest = {name: value for name, value in labels.items() if name != of_primary}
        of_nodes = _named(source, rest, _NODES, _NEITHER | {"primary"}, "lymph nodes", "--nodes-label")
    if of_nodes is None:
        problem = f"no label name refers to lymph nodes; it has {_listed(labels)}"
        raise ModelError(source, problem, "name it with --nodes-label NAME or NUMBER")
    if primary is None:
        rest = {name: value for name, value in labels.items() if name != of_nodes}
        others = _NEITHER | _NODES
        of_primary = _named(source, rest, _PRIMARY, others, "the primary tumour", "--primary-label")
    if of_nodes == of_primary:
        problem = f"its label {of_nodes} cannot be nodes and primary tumour at once"
        raise ModelError(source, problem, "name two labels, or --primary-label none")
    names = {"GTVn": of_nodes} | ({"GTVp": of_primary} if of_primary else {})
    return ChosenLabels(
        labels={ours: labels[name] for ours, name in names.items()},
        names=names,
        left_out=tuple(name for name in labels if name not in names.values()),
    )


def _listed(labels: Mapping[str, int]) -> str:
    by_value = sorted(labels.items(), key=lambda item: item[1])
    return ", ".join(f"{value} ({name})" for name, value in by_value) or "none but the background"


def _asked(source: Path, labels: Mapping[str, int], word: str, flag: str) -> str:
    """The label that the user names, by name or by value."""
    by_value = {str(value): name for name, value in labels.items()}
    if word not in labels and word not in by_value:
        problem = f"it has no label {word or '(empty)'}; it has {_listed(labels)}"
        raise ModelError(source, problem, f"name one of these as {flag}")
    return word if word in labels else by_value[word]


def _named(
    source: Path, labels: Mapping[str, int], one_of: set[str], none_of: set[str], what: str, flag: str
) -> str | None:
    """The label with one of these words in its name, and none of the others; None where there is none."""
    found = {n: value for n, value in labels.items() if (w := _words(n)) & one_of and not w & none_of}
    if len(found) > 1:
        problem = f"several of its labels could be {what}: {_listed(found)}"
        raise ModelError(source, problem, f"name it with {flag} NAME or NUMBER")
    return next(iter(found), None)


def _words(name: str) -> set[str]:
    """The words of a name in lower case, without numbers: `GTVn_1`, `LymphNode`, `gtv-N`."""
    apart = re.sub(r"(?<=[a-z])(?=[A-Z][a-z])", " ", name).lower()
    words = re.findall(r"[a-z]+", apart)
    pairs = {first + second for first, second in pairwise(words)}
    return {*words, *pairs}
