"""Model bundles: a folder that says what its networks need, so that the code need not know."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from aiene.errors import ModelError
from aiene.hashing import file_sha256

CARD = "model.json"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What a bundle may be called."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmenterSettings(_Strict):
    """How the segmenter is run; the folder has nnU-Net v2's trained-model layout.

    Parameters
    ----------
    auxiliary : name and value of labels that it was only taught besides (organs): neither nodes nor primary,
        0 in every label map of a run.
    """

    folder: str = "segmenter"
    folds: tuple[int, ...] = (0,)
    checkpoint: str = "checkpoint_final.pth"
    step_size: float = Field(default=0.5, gt=0, le=1)
    mirroring: bool = False
    auxiliary: dict[str, Annotated[int, Field(ge=1, le=255)]] = {}


class ClassifierSettings(_Strict):
    """How the classifier is run."""

    folder: str = "classifier"
    normalisation: Literal["legacy", "zscore", "none"] = "legacy"


class ModelCard(_Strict):
    """The content of `model.json`.

    Parameters
    ----------
    format : version of this layout.
    notice : the sentence that stands wherever results of this bundle are shown.
    profile : how a CT is prepared for these networks.
    rescue_registration : try other starts where the registration is judged poor.
    labels : name to label value; GTVp and GTVn must be there.
    neck_centre_lps_mm : profile `open`: the point of the template's space on which the crop is centred (in z;
        in plane it follows the patient); None is the template's own centre.
    provenance : where the weights come from: data, commands, figures; free JSON.
    files : SHA-256 of every other file of the bundle, by its path in it.
    """

    format: Literal[1] = 1
    name: str = Field(min_length=1, pattern=f"^{NAME}$")
    version: str = "1"
    licence: str
    intended_use: str
    notice: str
    profile: Literal["published", "open"]
    rescue_registration: bool
    ene_threshold: float = Field(default=0.3, ge=0, le=1)
    labels: dict[str, int] = {"GTVp": 1, "GTVn": 2}
    segmenter: SegmenterSettings = SegmenterSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    template: str = "template.nrrd"
    neck_centre_lps_mm: tuple[float, float, float] | None = None
    provenance: dict[str, Any] = {}
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A bundle on disk whose card has been read.

    Parameters
    ----------
    path : the folder.
    card : its `model.json`.
    sha256 : of `model.json`, which names the hash of every other file: the identity of the whole.
    """

    path: Path
    card: ModelCard
    sha256: str

    @property
    def segmenter_folder(self) -> Path:
        """The folder in nnU-Net v2's trained-model layout."""
        return self.path / self.card.segmenter.folder

    @property
    def classifier_folder(self) -> Path:
        """The folder of `config.json` and `weights.safetensors`."""
        return self.path / self.card.classifier.folder

    @property
    def template_file(self) -> Path:
        """The template CT."""
        return self.path / self.card.template


def read_bundle(path: Path) -> Bundle:
    """Read a bundle's card; its other files are not opened.

    Raises
    ------
    ModelError : no `model.json` there, or one that is no model card.
    """
    card_file = path / CARD
    try:
        content = card_file.read_bytes()
    except OSError as error:
        problem = f"no model bundle here ({CARD} cannot be read)"
        raise ModelError(path, problem, "name a bundle's folder") from error
    try:
        card = ModelCard.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        problem = f"not a model card: {where}: {first['msg'].lower()}"
        raise ModelError(card_file, problem, "get the bundle again") from error
    return Bundle(path, card, hashlib.sha256(content).hexdigest())


def verify_bundle(bundle: Bundle) -> None:
    """Compare every file of the bundle with the hash on its card.

    Raises
    ------
    ModelError : a file that is missing, changed, or not on the card.
    """
    for name, expected in sorted(bundle.card.files.items()):
        file = bundle.path / name
        if not file.is_file():
            raise ModelError(file, "missing from the model bundle", "get the bundle again")
        if file_sha256(file) != expected:
            raise ModelError(file, "its SHA-256 is not the one on the model card", "get the bundle again")
    strangers = sorted(_files_of(bundle.path).keys() - bundle.card.files.keys())
    if strangers:
        raise ModelError(bundle.path / strangers[0], "not on the model card", "remove it from the bundle")


def write_card(path: Path, card: dict[str, Any]) -> Bundle:
    """Hash every file under `path`, write `model.json` last, and read the bundle back.

    Parameters
    ----------
    path : the bundle's folder, complete but for `model.json`.
    card : the fields of `ModelCard` without `files`.
    """
    complete = ModelCard.model_validate({**card, "files": _hashes(path)})
    text = json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False, sort_keys=True)
    (path / CARD).write_text(text + "\n", encoding="utf-8")
    return read_bundle(path)


def _hashes(path: Path) -> dict[str, str]:
    return {name: file_sha256(file) for name, file in sorted(_files_of(path).items())}


def _files_of(path: Path) -> dict[str, Path]:
    """Every file of a bundle but its card, caches and readable notes, by its path in it."""
    files = (f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {f.relative_to(path).as_posix(): f for f in files if f.name not in (CARD, "README.md")}
