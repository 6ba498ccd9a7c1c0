"""`Plan`: everything that a trained model's `plans.json` and `dataset.json` decide about a run."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from aiene.errors import ModelError, Said, joined, library_reason, ours, said

ORIGIN_KEY = "aiene_origin"
"""Key of `plans.json` that marks a model brought over from nnU-Net v1; nnU-Net v2 does not look at it."""

NNUNET_V1 = "nnunet_v1"
"""Value of `ORIGIN_KEY`: resample, then normalise; average softmax (v2: normalise first, average logits)."""

REMEDY = "download the model again, or train it with nnU-Net v2's standard planner and trainer"

Shape = tuple[int, int, int]
_Axis = Literal[0, 1, 2]
_Model = TypeVar("_Model", bound=BaseModel)
Order = Literal[0, 1, 2, 3, 4, 5]
Scheme = Literal["CTNormalization", "ZScoreNormalization", "RescaleTo01Normalization", "NoNormalization"]

IGNORE = "ignore"
"""Name in `dataset.json` of a label that training leaves out: no class of the network."""

_SPLINE = "resample_data_or_seg_to_shape"
_TORCH = "resample_torch_fornnunet"
_KNOWN_RESIZING = {
    "spline": {"is_seg", "order", "order_z", "force_separate_z", "separate_z_anisotropy_threshold"},
    "torch": {
        "is_seg",
        "force_separate_z",
        "separate_z_anisotropy_threshold",
        "mode",
        "aniso_axis_mode",
        "num_threads",
        "memefficient_seg_resampling",
    },
}
_LARGEST_PATCH = 1024

CONVOLUTION = "torch.nn.modules.conv.Conv3d"
PLAIN_LAYERS = {
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}
"""Arguments of nnU-Net's plain networks that v1 and v2 before 2.4 do not write down."""


class _Loose(BaseModel):
    """Content from outside: what we use is checked, the rest is left alone."""

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)


class Resizing(_Loose):
    """How arrays are brought to another size.

    Parameters
    ----------
    by : nnU-Net's standard splines, or PyTorch's interpolation (`resample_torch_fornnunet`).
    order : of the spline, 0 to 5.
    order_z : of the spline along the coarse axis, where that is treated by itself.
    force_separate_z : treat the coarse axis by itself; None: where the spacing is anisotropic enough.
    separate_z_anisotropy_threshold : over how many times the finest spacing an axis is coarse.
    mode, aniso_axis_mode : PyTorch's interpolation in the plane and along a coarse axis.
    """

    by: Literal["spline", "torch"] = "spline"
    order: Order = 3
    order_z: Order = 0
    force_separate_z: bool | None = False
    separate_z_anisotropy_threshold: float = Field(default=3.0, ge=1)
    mode: Literal["linear", "nearest", "nearest-exact"] = "linear"
    aniso_axis_mode: Literal["linear", "nearest", "nearest-exact"] = "nearest-exact"


class Normalisation(_Loose):
    """How intensities are normalised.

    Parameters
    ----------
    scheme : nnU-Net v2's class name.
    inside_mask : statistics from, and changes to, the non-zero part alone (z-score only).
    low, high : CT: intensities are clipped to these percentiles of the training foreground.
    mean, sd : CT: of the training foreground.
    """

    scheme: Scheme
    inside_mask: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    sd: float = 1.0


class Architecture(_Loose):
    """A network by name, with its arguments as they stand in the file."""

    network_class_name: str
    arch_kwargs: dict[str, Any]


class Foreground(_Loose):
    """Intensities of the training's foreground, in the unit of the training's images."""

    percentile_00_5: float
    percentile_99_5: float
    mean: float
    std: float


class _Configuration(_Loose):
    patch_size: tuple[int, ...]
    spacing: tuple[float, ...]
    normalization_schemes: tuple[str, ...]
    use_mask_for_norm: tuple[bool, ...]
    resampling_fn_data: str = _SPLINE
    resampling_fn_data_kwargs: dict[str, Any] = {"order": 3, "force_separate_z": None}
    resampling_fn_probabilities: str = _SPLINE
    resampling_fn_probabilities_kwargs: dict[str, Any] = {"order": 1, "force_separate_z": None}
    architecture: Architecture
    previous_stage: str | None = None


class _Plans(_Loose):
    transpose_forward: tuple[_Axis, _Axis, _Axis] = (0, 1, 2)
    transpose_backward: tuple[_Axis, _Axis, _Axis] = (0, 1, 2)
    configurations: dict[str, dict[str, Any]]
    foreground_intensity_properties_per_channel: dict[str, dict[str, Any]] = Field(
        default={},
        validation_alias=AliasChoices(
            "foreground_intensity_properties_per_channel", "foreground_intensity_properties_by_modality"
        ),
    )
    aiene_origin: Literal["nnunet_v1"] | None = None


class _Dataset(_Loose):
    channel_names: dict[str, Any] = Field(
        min_length=1, validation_alias=AliasChoices("channel_names", "modality")
    )
    labels: dict[str, int | str | list[int]] = Field(min_length=2)


@dataclass(frozen=True)
class Plan:
    """What one configuration of a trained model needs. Axes are those of the array *after* `forward`.

    Parameters
    ----------
    file : `plans.json`, for messages.
    configuration : its name, `3d_fullres` as a rule.
    patch : voxels of one tile.
    spacing : mm at which the network works.
    forward, backward : transposition of the axes (z, y, x) before, and after, everything else.
    normalisation : of the one input channel.
    foreground : intensities of the training's foreground; None where the plan does not know them.
    image_resizing, score_resizing : to the network's spacing, and of its output back to the crop.
    architecture : the network.
    labels : name to label value, background included, `ignore` left out.
    from_v1 : nnU-Net v1's order of steps.
    """

    file: Path
    configuration: str
    patch: Shape
    spacing: tuple[float, float, float]
    forward: Shape
    backward: Shape
    normalisation: Normalisation
    foreground: Foreground | None
    image_resizing: Resizing
    score_resizing: Resizing
    architecture: Architecture
    labels: dict[str, int]
    from_v1: bool

    @property
    def classes(self) -> int:
        """Number of output channels, background included."""
        return len(self.labels)


def read_plan(folder: Path, configuration: str) -> Plan:
    """The plan of one configuration from `plans.json` and `dataset.json` in a folder.

    Raises
    ------
    ModelError : a file that is absent or damaged, or a model that this pipeline cannot run (2D, cascade,
        overlapping regions, several input channels, an unknown way to resample or normalise).
    """
    plans_file, dataset_file = folder / "plans.json", folder / "dataset.json"
    plans = _parse(plans_file, _Plans)
    dataset = _parse(dataset_file, _Dataset)
    chosen = _configuration(plans_file, plans, configuration)
    _refuse_what_is_not_ours(plans_file, chosen)
    if [plans.transpose_forward[axis] for axis in plans.transpose_backward] != [0, 1, 2]:
        raise ModelError(plans_file, "its two transpositions do not undo each other", REMEDY)
    foreground = _foreground(plans_file, plans)
    z, y, x = chosen.patch_size
    sz, sy, sx = chosen.spacing
    return Plan(
        file=plans_file,
        configuration=configuration,
        patch=(z, y, x),
        spacing=(sz, sy, sx),
        forward=plans.transpose_forward,
        backward=plans.transpose_backward,
        normalisation=_normalisation(plans_file, foreground, chosen),
        foreground=foreground,
        image_resizing=_resizing(plans_file, chosen.resampling_fn_data, chosen.resampling_fn_data_kwargs),
        score_resizing=_resizing(
            plans_file, chosen.resampling_fn_probabilities, chosen.resampling_fn_probabilities_kwargs
        ),
        architecture=chosen.architecture,
        labels=_labels(dataset_file, dataset),
        from_v1=plans.aiene_origin == NNUNET_V1,
    )


def _parse(file: Path, model: type[_Model]) -> _Model:
    try:
        return model.model_validate(json.loads(file.read_bytes(), object_pairs_hook=_each_once))
    except _NamedTwiceError as error:
        raise ModelError(file, said("it names {} twice", error), REMEDY) from error
    except OSError as error:
        raise ModelError(
            file, "cannot be read", "name a folder that holds a trained nnU-Net model"
        ) from error
    except ValidationError as error:
        raise ModelError(file, _first_problem(error), REMEDY) from error
    except (ValueError, RecursionError) as error:
        raise ModelError(file, "is not JSON", REMEDY) from error


class _NamedTwiceError(ValueError):
    """A JSON object has a name twice; readers differ in which they take."""


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        raise _NamedTwiceError(next(name for name, count in counts.items() if count > 1))
    return content


def _first_problem(error: ValidationError) -> Said:
    first = error.errors()[0]
    where = joined(".", first["loc"]) or ours("the file")
    return said("{}: {}", where, library_reason(error, first["msg"].lower()))


def _configuration(file: Path, plans: _Plans, name: str) -> _Configuration:
    """The configuration of that name, with what it inherits."""
    merged: dict[str, Any] = {}
    following: Any = name
    for _ in range(len(plans.configurations) + 1):
        if not isinstance(following, str) or following not in plans.configurations:
            raise ModelError(file, said("it has no configuration named {}", following), REMEDY)
        own = plans.configurations[following]
        merged = {**own, **merged}
        following = own.get("inherits_from")
        if following is None:
            break
    else:
        raise ModelError(file, "its configurations inherit from each other in a circle", REMEDY)
    if "architecture" not in merged and "UNet_class_name" in merged:
        merged["architecture"] = _architecture_of_older_plans(file, merged)
    try:
        return _Configuration.model_validate(merged)
    except ValidationError as error:
        raise ModelError(file, said("configuration {}: {}", name, _first_problem(error)), REMEDY) from error


def _architecture_of_older_plans(file: Path, old: dict[str, Any]) -> dict[str, Any]:
    """The architecture block that nnU-Net before 2.4 left to be worked out."""
    try:
        plain = old["UNet_class_name"] == "PlainConvUNet"
        convs = old["n_conv_per_stage_encoder"]
        base, most = int(old["UNet_base_num_features"]), int(old["unet_max_num_features"])
        arguments = {
            "n_stages": len(convs),
            "features_per_stage": [min(base * 2**level, most) for level in range(len(convs))],
            "conv_op": CONVOLUTION,
            "kernel_sizes": old["conv_kernel_sizes"],
            "strides": old["pool_op_kernel_sizes"],
            "n_conv_per_stage" if plain else "n_blocks_per_stage": convs,
            "n_conv_per_stage_decoder": old["n_conv_per_stage_decoder"],
            **PLAIN_LAYERS,
        }
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(file, "its older description of the network is not complete", REMEDY) from error
    name = str(old["UNet_class_name"])
    return {
        "network_class_name": f"dynamic_network_architectures.architectures.unet.{name}",
        "arch_kwargs": arguments,
    }


def _refuse_what_is_not_ours(file: Path, chosen: _Configuration) -> None:
    if len(chosen.patch_size) != 3 or len(chosen.spacing) != 3:
        raise ModelError(file, "the model is two-dimensional", "use a 3d configuration")
    if chosen.previous_stage is not None:
        raise ModelError(file, "the model is the second stage of a cascade", "use 3d_fullres or 3d_lowres")
    if not all(0 < n <= _LARGEST_PATCH for n in chosen.patch_size) or min(chosen.spacing) <= 0:
        raise ModelError(
            file, said("patch {} at {} mm is not a usable patch", chosen.patch_size, chosen.spacing), REMEDY
        )


def _resizing(file: Path, function: str, arguments: dict[str, Any]) -> Resizing:
    kinds = {_SPLINE: "spline", _TORCH: "torch"}
    if function not in kinds:
        raise ModelError(file, said("it resamples by {}, which is not supported", function), REMEDY)
    unknown = sorted(arguments.keys() - _KNOWN_RESIZING[kinds[function]])
    if unknown:
        problem = said("{} has an argument {}, which is not known here", function, unknown[0])
        raise ModelError(file, problem, REMEDY)
    # with nothing said, nnU-Net's splines never treat an axis by itself, PyTorch's interpolation may
    default = {"by": kinds[function], "force_separate_z": False if function == _SPLINE else None}
    try:
        return Resizing.model_validate({**default, **arguments})
    except ValidationError as error:
        raise ModelError(file, said("{}: {}", ours(function), _first_problem(error)), REMEDY) from error


def _foreground(file: Path, plans: _Plans) -> Foreground | None:
    """What the plan knows of the training's intensities; nothing, or zeros, stand for not measured."""
    given = plans.foreground_intensity_properties_per_channel.get("0")
    if not given:
        return None
    try:
        found = Foreground.model_validate(given)
    except ValidationError as error:
        where = said("the intensities of the training foreground: {}", _first_problem(error))
        raise ModelError(file, where, REMEDY) from error
    return found if found.percentile_00_5 < found.percentile_99_5 and found.std > 0 else None


def _normalisation(file: Path, values: Foreground | None, chosen: _Configuration) -> Normalisation:
    if len(chosen.normalization_schemes) != 1 or len(chosen.use_mask_for_norm) != 1:
        count = len(chosen.normalization_schemes)
        raise ModelError(
            file, said("the model takes {} images at a time", count), "use a model that takes one CT"
        )
    scheme, inside_mask = chosen.normalization_schemes[0], chosen.use_mask_for_norm[0]
    if scheme not in get_args(Scheme):
        raise ModelError(file, said("it normalises by {}, which is not supported", scheme), REMEDY)
    if scheme != "CTNormalization":
        return Normalisation.model_validate({"scheme": scheme, "inside_mask": inside_mask})
    if values is None:
        raise ModelError(file, "the intensities of the training foreground are missing", REMEDY)
    return Normalisation(
        scheme="CTNormalization",
        low=values.percentile_00_5,
        high=values.percentile_99_5,
        mean=values.mean,
        sd=values.std,
    )


def _labels(file: Path, dataset: _Dataset) -> dict[str, int]:
    if len(dataset.channel_names) != 1:
        names = joined(", ", list(dataset.channel_names.values())[:4])
        problem = said("the model takes {} images at a time ({})", len(dataset.channel_names), names)
        raise ModelError(file, problem, "use a model that takes one CT")
    labels = {name: value for name, value in _by_name(file, dataset.labels).items() if name != IGNORE}
    if sorted(labels.values()) != list(range(len(labels))) or len(labels) > 255:
        raise ModelError(file, "its label values do not count up from 0", REMEDY)
    return labels


def _by_name(file: Path, given: dict[str, int | str | list[int]]) -> dict[str, int]:
    """Label values by name, from v2's `{name: value}` (or `[value]`) or v1's `{value: name}`."""
    if all(name.isdecimal() for name in given) and all(isinstance(value, str) for value in given.values()):
        names = [str(name) for name in given.values()]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise ModelError(file, said("it has two labels named {}", twice), REMEDY)
        return {name: int(value) for value, name in zip(given, names, strict=True)}
    regions = sorted(name for name, value in given.items() if isinstance(value, list) and len(value) != 1)
    if regions:
        problem = said(
            "the model predicts regions of several labels ({}), which may overlap", joined(", ", regions)
        )
        raise ModelError(file, problem, "use one trained on plain labels")
    try:
        return {n: int(v[0] if isinstance(v, list) else v) for n, v in given.items()}
    except ValueError as error:
        raise ModelError(file, "the value of a label is not a number", REMEDY) from error


def read_label_names(file: Path) -> dict[str, int]:
    """The labels of a `dataset.json`, v1's or v2's, by name; background included, `ignore` left out.

    Raises
    ------
    ModelError : it cannot be read, or holds no such labels.
    """
    return _labels(file, _parse(file, _Dataset))
