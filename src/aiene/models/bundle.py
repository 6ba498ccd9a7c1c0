"""Model bundles: a folder that says what its networks need, so that the code need not know.

A bundle of the Hugging Face hub (`hf://ORGANISATION/REPOSITORY`) is checked against its own hashes.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    ValidationError,
    field_validator,
    model_validator,
)

from aiene.errors import ModelError, OutputError, UsageError, joined, library_reason, need, ours, said
from aiene.hashing import file_sha256
from aiene.nodes.node import CountingRule
from aiene.results.atomic import make_folder, writing

CARD = "model.json"
NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"
"""What a bundle may be called."""

OperatingPoint = Literal["balanced", "sensitive"]
"""How readily the segmenter calls something a node: trusted at the first, missing little at the second."""

Tumour = Literal["GTVp", "GTVn"]

LABEL_VALUES = {"GTVp": 1, "GTVn": 2}
"""What the label maps of the road hold, whatever the classes of a network are called and numbered."""

PUBLISHED_ENE_THRESHOLD = 0.3
"""Of the published weights; every card may say its own."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SegmenterSettings(_Strict):
    """How the segmenter is run; the folder has nnU-Net v2's trained-model layout.

    Parameters
    ----------
    folds : whose answers are averaged.
    intensities : what it is fed: the profile's crop, scaled to [0, 1], or the same crop in HU.
    auxiliary : name and value of labels that it was only taught besides (organs): neither nodes nor primary,
        0 in every label map of a run.
    cores : by label, how far its logit must lead somewhere in a piece that is called so (see
        `pieces_with_core`). Empty: every piece counts, as in nnU-Net.
    operating_points : by name, by how much the bar for a node is raised where a run asks for that point: its
        core, or where it needs none its logit; 0 is what the bundle gives by itself. Empty: there is no
        choice.
    """

    folder: str = "segmenter"
    folds: tuple[NonNegativeInt | Literal["all"], ...] = Field(default=(0,), min_length=1)
    checkpoint: str = Field(default="checkpoint_final.pth", pattern=r"^\w[\w.-]*$")
    intensities: Literal["crop", "hu"] = "crop"
    step_size: float = Field(default=0.5, gt=0, le=1)
    mirroring: bool = False
    auxiliary: dict[str, Annotated[int, Field(ge=1, le=255)]] = {}
    cores: dict[Tumour, Annotated[float, Field(ge=0, le=50)]] = {}
    operating_points: dict[OperatingPoint, Annotated[float, Field(ge=-20, le=20)]] = {}


class ClassifierSettings(_Strict):
    """How the classifier is run.

    Parameters
    ----------
    mirroring : average its logits over the mirror images of a node, left to right and head to feet. Off as
        published: the left neck and its mirror image then give two numbers.
    """

    folder: str = "classifier"
    normalisation: Literal["legacy", "zscore", "none"] = "legacy"
    mirroring: bool = False


class ModelCard(_Strict):
    """The content of `model.json`.

    Parameters
    ----------
    format : version of this layout.
    notice : the sentence that stands wherever results of this bundle are shown.
    profile : how a CT is prepared for these networks.
    pos_from : see `CountingRule`; without effect in the profile `published`.
    rescue_registration : try other starts where the registration is judged poor.
    labels : which value of the segmenter's own output is `GTVn` and, where it knows primary tumours, `GTVp`;
        no other value ever counts. The label maps of a run hold 1 for GTVp and 2 for GTVn in any case.
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
    ene_threshold: float = Field(default=PUBLISHED_ENE_THRESHOLD, ge=0, le=1)
    pos_from: float = Field(default=0.0, ge=0, le=1)
    labels: dict[str, int] = {"GTVp": 1, "GTVn": 2}
    segmenter: SegmenterSettings = SegmenterSettings()
    classifier: ClassifierSettings = ClassifierSettings()
    template: str = "template.nrrd"
    neck_centre_lps_mm: tuple[float, float, float] | None = None
    provenance: dict[str, Any] = {}
    files: dict[str, str]

    @field_validator("labels")
    @classmethod
    def _labels_are_apart(cls, labels: dict[str, int]) -> dict[str, int]:
        used = [labels[name] for name in ("GTVn", "GTVp") if name in labels]
        if "GTVn" not in labels or min(used) < 1 or len(set(used)) < len(used):
            raise ValueError("GTVn must be there, and GTVn and GTVp be different numbers from 1 on")
        return labels

    @model_validator(mode="after")
    def _cores_are_of_labels(self) -> Self:
        if not self.segmenter.cores.keys() <= self.labels.keys():
            raise ValueError("a core of a label that the segmenter does not know")
        return self

    @property
    def rule(self) -> CountingRule:
        """Which nodes count; a bundle of the profile `published` counts as published."""
        return CountingRule(self.ene_threshold, self.pos_from if self.profile == "open" else 0.0)


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
        problem = said("no model bundle here ({} cannot be read)", ours(CARD))
        raise ModelError(path, problem, "name a bundle's folder") from error
    try:
        card = ModelCard.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = joined(".", first["loc"]) or ours("the file")
        problem = said("not a model card: {}: {}", where, library_reason(error, first["msg"].lower()))
        raise ModelError(card_file, problem, "download the bundle again") from error
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
            raise ModelError(file, "missing from the model bundle", "download the bundle again")
        if file_sha256(file) != expected:
            raise ModelError(
                file, "its SHA-256 is not the one on the model card", "download the bundle again"
            )
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
    hashes = {name: file_sha256(file) for name, file in sorted(_files_of(path).items())}
    complete = ModelCard.model_validate({**card, "files": hashes})
    text = json.dumps(complete.model_dump(mode="json"), indent=2, ensure_ascii=False, sort_keys=True)
    (path / CARD).write_text(text + "\n", encoding="utf-8")
    return read_bundle(path)


def _files_of(path: Path) -> dict[str, Path]:
    """Every file of a bundle but its card, caches and readable notes, by its path in it."""
    files = (f for f in path.rglob("*") if f.is_file() and "__pycache__" not in f.parts)
    return {f.relative_to(path).as_posix(): f for f in files if f.name not in (CARD, "README.md")}


# Where bundles live, and how one is found by name.


DEFAULT = "default"


def models_folder() -> Path:
    """`$AIENE_MODELS`, or the user's data folder."""
    named = os.environ.get("AIENE_MODELS")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("aiene", appauthor=False) / "models"


def default_folder() -> Path:
    """The open default bundle, which comes with the package."""
    return Path(str(resources.files("aiene.models") / DEFAULT))


def find_bundle(name: str | os.PathLike[str]) -> Bundle:
    """The bundle of a name, or of a folder.

    Raises
    ------
    ModelError : no such bundle, or its card cannot be read.
    """
    name = os.fspath(name)
    folder = Path(name)
    if os.sep in name or folder.joinpath(CARD).is_file():
        return read_bundle(folder)
    if name == DEFAULT:
        return read_bundle(default_folder())
    if (models_folder() / name).is_dir():
        return read_bundle(models_folder() / name)
    known = joined(", ", sorted(b.card.name for b in all_bundles() if isinstance(b, Bundle)))
    raise ModelError(
        name, "no model bundle of this name", said("known are {}; or name a bundle's folder", known)
    )


def all_bundles() -> Iterator[Bundle | ModelError]:
    """The default bundle, then those of the models folder; one that cannot be read is its error."""
    folders = [default_folder()]
    if models_folder().is_dir():
        folders += sorted(f for f in models_folder().iterdir() if f.is_dir() and not f.name.startswith("."))
    for folder in folders:
        try:
            yield read_bundle(folder)
        except ModelError as error:
            yield error


_ADDRESS: Final = re.compile(r"hf://(?P<repository>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?")


def import_from_hub(name: str, address: str, out: Path | None = None) -> Bundle:
    """Fetch a bundle, through the hub client's cache, and put it among the bundles.

    Parameters
    ----------
    name : folder among the bundles; the bundle's card keeps its own name where that is the same.
    address : `hf://ORGANISATION/REPOSITORY`, with `@REVISION` where one is wanted.
    out : its folder, instead of NAME in the models folder.

    Raises
    ------
    UsageError : no such address or name.
    ModelError : it cannot be fetched, or is no sound bundle.
    OutputError : something lies in its place, or it cannot be written.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise UsageError(
            said("{}: give hf://ORGANISATION/REPOSITORY, or hf://ORGANISATION/REPOSITORY@REVISION.", address)
        )
    if not re.fullmatch(NAME, name):
        raise UsageError(said("--name {}: letters, digits, dots, dashes and underlines only.", name))
    target = out or models_folder() / name
    if target.exists():
        raise OutputError(target, "a bundle or something else exists there", "choose another --name or -o")
    fetched = read_bundle(_fetch(found["repository"], found["revision"], address))
    half = target.with_name(f".{target.name}.partial")
    make_folder(target.parent)
    with writing(target):
        shutil.rmtree(half, ignore_errors=True)
        for file in [CARD, *fetched.card.files]:
            source, place = fetched.path / file, half / file
            if Path(file).is_absolute() or ".." in Path(file).parts or not source.is_file():
                shutil.rmtree(half, ignore_errors=True)
                raise ModelError(source, "it is on the card, but not in the repository", "ask its owner")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, place)
    try:
        verify_bundle(read_bundle(half))
        with writing(target):
            half.rename(target)
    finally:
        shutil.rmtree(half, ignore_errors=True)
    return read_bundle(target)


def _fetch(repository: str, revision: str | None, address: str) -> Path:
    hub = need("huggingface_hub", extra="benchmark", purpose="A bundle of the hub")
    errors = need("huggingface_hub.errors", extra="benchmark", purpose="A bundle of the hub")
    requests = need("httpx", extra="benchmark", purpose="A bundle of the hub")
    try:
        return Path(hub.snapshot_download(repository, revision=revision))
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise ModelError(
            address, "there is no such repository or revision", "correct it, or log in to the hub"
        ) from error
    except (
        errors.HfHubHTTPError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
        OSError,
        requests.HTTPError,
    ) as error:
        raise ModelError(
            address, "it cannot be fetched", "check the network, or HF_HUB_OFFLINE and the hub's cache"
        ) from error
