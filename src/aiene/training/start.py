"""The segmenter that a training starts from: its plan in nnU-Net's words, checked before any work."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final, NamedTuple

from aiene.errors import ModelError
from aiene.models.bundle import Bundle
from aiene.segment.plans import Plan
from aiene.segment.segmenter import load_segmenter, model_folder
from aiene.training.records import LABELS

_TAKEN: Final = (
    "patch_size",
    "spacing",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_probabilities",
    "resampling_fn_probabilities_kwargs",
)
_TAKEN_FROM_PLAN: Final = ("transpose_forward", "transpose_backward", "aiene_origin")
_INTENSITIES: Final = "foreground_intensity_properties_per_channel"
_OLDER_INTENSITIES: Final = "foreground_intensity_properties_by_modality"
_IMPORTED: Final = ("conv_op", "norm_op", "dropout_op", "nonlin")
"""Arguments of a network that nnU-Net looks up by their names."""


class Start(NamedTuple):
    """Where a training starts.

    Parameters
    ----------
    configuration : entries for the configuration of the new plan.
    plan : entries for the new plan itself.
    checkpoint : file of the weights.
    same_labels : whether its outputs mean what ours do; else the last layers are new.
    """

    configuration: dict[str, Any]
    plan: dict[str, Any]
    checkpoint: Path
    same_labels: bool


def start_of(base: Bundle) -> Start:
    """Plan and weights of a bundle's segmenter, whatever its configuration is called and however old it is.

    Raises
    ------
    ModelError : it is no model that can be run here, its weights do not fit its plan, or it takes HU.
    """
    if base.card.segmenter.intensities != "crop":
        raise ModelError(
            base.path,
            "its segmenter takes HU, but a training feeds crops that are scaled to 0 to 1",
            "start from another bundle",
        )
    home = model_folder(base.segmenter_folder)
    fold, name = base.card.segmenter.folds[0], base.card.segmenter.checkpoint
    plan = load_segmenter(home, folds=(fold,), checkpoint=name).plan
    content = json.loads((home / "plans.json").read_text(encoding="utf-8"))
    chosen = _with_inherited(content["configurations"], plan.configuration)
    arguments = dict(plan.architecture.arch_kwargs)
    architecture = {
        "network_class_name": plan.architecture.network_class_name,
        "arch_kwargs": arguments,
        "_kw_requires_import": [name for name in _IMPORTED if name in arguments],
    }
    intensities = content.get(_INTENSITIES) or content.get(_OLDER_INTENSITIES)
    return Start(
        {**{key: chosen[key] for key in _TAKEN if key in chosen}, "architecture": architecture},
        {
            **{key: content[key] for key in _TAKEN_FROM_PLAN if content.get(key)},
            **({_INTENSITIES: intensities} if intensities else {}),
        },
        home / f"fold_{fold}" / name,
        _means_ours(base, plan),
    )


def _means_ours(base: Bundle, plan: Plan) -> bool:
    """Whether its outputs are background, GTVp and GTVn in our order, by its card and by its own names."""
    ours = {name: value for name, value in LABELS.items() if value}
    return plan.classes == len(LABELS) and all(
        base.card.labels.get(name) == value and plan.labels.get(name, value) == value
        for name, value in ours.items()
    )


def _with_inherited(configurations: dict[str, Any], name: str) -> dict[str, Any]:
    """A configuration of a plan that has been checked, with what it inherits."""
    own = configurations[name]
    above = own.get("inherits_from")
    return {**(_with_inherited(configurations, above) if above else {}), **own}
