"""What a benchmark is asked to do: the words of the command line and of `benchmark_config.yaml`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from aiene.benchmark.comparators.protocol import adapters
from aiene.benchmark.records import SEGMENTATION_METRICS
from aiene.errors import InputError

Kind = str
"""A kind of model: a key of `adapters()`."""

GTVP, GTVN = "GTVp", "GTVn"
LABEL_VALUES = {GTVP: 1, GTVN: 2}
"""The benchmark's own label values, whatever the masks use."""
POOLED_ENDPOINTS = ("node_sensitivity", "node_dice", "froc", "auc_on_truth", "auc_end_to_end")
"""Endpoints over all nodes together, besides METRIC_LABEL over the cases."""
OUTPUT_FORMATS = ("csv", "json", "html")


def _as_list(value: Any) -> Any:
    return [value] if isinstance(value, int) else value


LabelValues = Annotated[tuple[int, ...], BeforeValidator(_as_list)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class LabelChoice(_Strict):
    """Which values of a label map are the primary tumour, the nodes, or to be passed over.

    Parameters
    ----------
    GTVp, GTVn : values of the primary tumour and of the lymph nodes; empty where there is none.
    ignore : values that count as background.
    """

    GTVp: LabelValues = (1,)
    GTVn: LabelValues = (2,)
    ignore: LabelValues = ()

    @field_validator("GTVp", "GTVn", "ignore")
    @classmethod
    def _within(cls, values: tuple[int, ...]) -> tuple[int, ...]:
        if any(not 1 <= value <= 65535 for value in values):
            raise ValueError("label values are 1 to 65535")
        return values


class ModelEntry(_Strict):
    """One model to compare.

    Parameters
    ----------
    source : a folder, a bundle's name, or a hub id; `timm:NAME` for an architecture of timm.
    name : how it is called in the results; None: the last part of the source.
    kind : which adapter runs it; None: what the files say.
    revision : of a hub id.
    labels : `predictions`: the values of its label maps.
    label_map : `semantic` and `monai`: class number of the model to GTVp or GTVn.
    prompts : `promptable`: boxes from the ground truth, or from what a bundle of this run found.
    prompt_model : with `prompts: road`, the name of that bundle; None: the first one.
    box_margin_mm : added to each side of a box.
    window_hu : what becomes 0 and 1 before an image model.
    input_size : pixels to which a slice or patch is scaled; None: what the model's files say.
    patch_mm : `encoder` and `timm`: side of the square patch around a node.
    ene_nodes : `predictions`: whether a name such as GTVn_02 in its `ene.csv` is a node of its own map, or
        the truth's node of this name.
    probe : `encoder` and `timm`: what is fitted on the frozen features.
    neighbours : of the k-nearest-neighbours probe.
    """

    source: str = Field(min_length=1)
    name: str | None = Field(default=None, min_length=1)
    kind: Kind | None = None
    revision: str | None = None
    labels: LabelChoice | None = None
    label_map: dict[int, Literal["GTVp", "GTVn"]] | None = None
    prompts: Literal["truth", "road"] = "truth"
    prompt_model: str | None = None
    box_margin_mm: float = Field(default=2.0, ge=0, le=100)
    window_hu: tuple[float, float] = (-175.0, 275.0)
    input_size: int | None = Field(default=None, ge=8, le=4096)
    ene_nodes: Literal["own", "truth"] = "own"
    patch_mm: float = Field(default=64.0, gt=4, le=500)
    probe: Literal["linear", "knn"] = "linear"
    neighbours: int = Field(default=5, ge=1)

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: Kind | None) -> Kind | None:
        if kind is not None and kind not in adapters():
            *others, last = (repr(known) for known in adapters())
            raise ValueError(f"Input should be {', '.join(others)} or {last}")
        return kind

    @field_validator("window_hu")
    @classmethod
    def _rising(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not window[0] < window[1]:
            raise ValueError("the window's lower end must be under its upper end")
        return window


class BenchmarkConfig(_Strict):
    """Everything that a benchmark's numbers depend on.

    Parameters
    ----------
    image_dir, seg_dir : folders of the CTs and of their ground truth.
    ene_csv : ENE of single nodes, 0 or 1; see `aiene.benchmark.ene_labels`.
    models, hf_models, predictions : what is compared: entries; hub ids or folders; name to folder.
    labels : of the ground truth's masks.
    nodes : `components`: connected parts (26) of GTVn; `values`: each value of GTVn is a node.
    node_maps : folder of ground-truth node maps by case id (each value a node), instead of `nodes`.
    patient_pattern : regular expression that finds the patient in a case id (its first group, if it has one);
        None: each case is a patient, unless the ENE file says otherwise.
    iou_threshold : overlap from which a found node is a node of the truth.
    ene_thresholds : thresholds besides each model's own; 0.3 is the published one.
    max_cases : take the first so many.
    resample : take masks and predictions that lie on another grid than the CT, by nearest neighbour.
    repeats : how often each inference is timed; the median counts.
    threads : cores that one case may use, the same for every model and whatever `jobs`.
    flops : count floating-point operations, on the first case.
    device : see `resolve_device`.
    reference : the model that the others are compared with; None: the first one.
    primary : the endpoint that decides: METRIC_LABEL (`dice_GTVn`) or one of `POOLED_ENDPOINTS`.
    equivalence_margin : difference in the primary endpoint, in its unit, that is taken for none; None: 0.05
        for endpoints from 0 to 1, no test of equivalence for others.
    metrics : of segmentation that are tested and ranked.
    output_formats : files that are left: `csv`, `json`, `html`; the summary's JSON is always there.
    leaderboard, site : file or folder that the run is added to, and who measured, in words to be shared.
    resamples, seed : of bootstrap and permutations.
    """

    image_dir: Path | None = None
    seg_dir: Path | None = None
    ene_csv: Path | None = None
    models: tuple[ModelEntry, ...] = ()
    hf_models: tuple[str, ...] = ()
    predictions: dict[str, Path] = {}
    labels: LabelChoice = LabelChoice()
    nodes: Literal["components", "values"] = "components"
    node_maps: Path | None = None
    patient_pattern: str | None = None
    iou_threshold: float = Field(default=0.3, gt=0, le=1)
    ene_thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...] = (0.3,)
    max_cases: int | None = Field(default=None, ge=1)
    resample: bool = False
    repeats: int = Field(default=1, ge=1, le=100)
    threads: int = Field(default=1, ge=1, le=256)
    flops: bool = True
    device: str = "auto"
    reference: str | None = None
    primary: str = "dice_GTVn"
    equivalence_margin: float | None = Field(default=None, gt=0)
    metrics: tuple[str, ...] = SEGMENTATION_METRICS
    output_formats: tuple[str, ...] = OUTPUT_FORMATS
    leaderboard: Path | None = None
    site: str = Field(default="", max_length=100)
    resamples: int = Field(default=2000, ge=100, le=100_000)
    seed: int = Field(default=0, ge=0)

    @property
    def bootstrap(self) -> dict[str, int]:
        """What every bootstrap takes."""
        return {"resamples": self.resamples, "seed": self.seed}

    @field_validator("primary", "metrics", "output_formats")
    @classmethod
    def _known(cls, given: str | tuple[str, ...], info: ValidationInfo) -> str | tuple[str, ...]:
        names = (given,) if isinstance(given, str) else tuple(dict.fromkeys(given))
        for name in names:
            _check_word(name, _WORDS[str(info.field_name)])
        return names[0] if isinstance(given, str) else names


_WORDS = {
    "primary": (
        *(f"{metric}_{label}" for label in (GTVN, GTVP) for metric in SEGMENTATION_METRICS),
        *POOLED_ENDPOINTS,
    ),
    "metrics": SEGMENTATION_METRICS,
    "output_formats": OUTPUT_FORMATS,
}


def _check_word(name: str, known: Sequence[str]) -> None:
    if name in known:
        return
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}? " if near else ""
    raise ValueError(f"{name} is not known; {hint}known are {', '.join(known)}")


def read_config(file: Path) -> BenchmarkConfig:
    """The configuration of a YAML file; relative paths in it are taken from where the command is given.

    Raises
    ------
    InputError : no readable YAML mapping, an unknown key (named with the nearest known one), a value that
        cannot be.
    """
    import yaml

    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(file, f"it cannot be read ({error.strerror})", "check the path") from error
    except (ValueError, yaml.YAMLError) as error:
        raise InputError(file, "it is not readable as YAML", "correct it") from error
    if content is None:
        content = {}
    if not isinstance(content, dict):
        raise InputError(file, "it is not a YAML mapping", "write `key: value` lines")
    try:
        return BenchmarkConfig.model_validate(content)
    except ValidationError as error:
        raise _explained(file, error) from error


def _explained(file: Path, error: ValidationError) -> InputError:
    """The first problem of a configuration, unknown keys before others."""
    problems = error.errors()
    unknown = [p for p in problems if p["type"] == "extra_forbidden"]
    first = (unknown or problems)[0]
    where = ".".join(str(part) for part in first["loc"])
    if not unknown:
        said = str(first["msg"]).removeprefix("Value error, ")
        return InputError(file, f"{where}: {said[:1].lower()}{said[1:]}", "correct this value")
    known = _known_keys(first["loc"])
    lower = {key.lower(): key for key in known}
    near = lower[difflib.get_close_matches(str(first["loc"][-1]).lower(), lower, n=1, cutoff=0.0)[0]]
    return InputError(file, f"unknown key {where}", f"did you mean {near}? Known are {', '.join(known)}")


def _known_keys(place: tuple[Any, ...]) -> list[str]:
    """The keys that may stand where an unknown one was found."""
    within: dict[Any, type[BaseModel]] = {"models": ModelEntry, "labels": LabelChoice}
    found = [within[part] for part in place[:-1] if part in within]
    return list((found[-1] if found else BenchmarkConfig).model_fields)
