"""Model files from a folder, the hub's cache or the hub: safetensors only, and no code of others."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from aiene.benchmark.comparators.protocol import ModelFacts, Request, count_parameters
from aiene.errors import ModelError, need
from aiene.hashing import file_sha256

CONFIG = "config.json"
PREPROCESSOR = "preprocessor_config.json"
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.\-]*(/[\w.\-]+)?$")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".h5", ".msgpack")
_UNLOADABLE = (OSError, ValueError, KeyError, RuntimeError, ImportError, AttributeError, TypeError)
_WANTED = ["*.json", "*.safetensors"]


def model_folder(source: str, revision: str | None = None) -> Path:
    """Where a model's files lie: the folder itself, or the snapshot of a hub id.

    An id is fetched into the hub's cache (`HF_HOME`); with `HF_HUB_OFFLINE=1`, or where the hub cannot be
    reached, what the cache holds is taken. Only JSON files and safetensors are fetched.

    Raises
    ------
    ModelError : no such folder, and no such model in the cache or on the hub.
    MissingExtraError : an id is given, and the hub's client is not installed.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return folder
    if folder.is_file():
        raise ModelError(folder, "it is a file, not a model's folder", "name the folder that contains it")
    if source.startswith((".", "~", os.sep)) or not _HUB_ID.fullmatch(source):
        raise ModelError(source, "no such folder", "check the path, or give the id of a model on the hub")
    return _snapshot(source, revision)


def read_json(folder: Path, name: str) -> dict[str, Any]:
    """A JSON file of a model; empty where it is not there.

    Raises
    ------
    ModelError : it is there, but is not a JSON object.
    """
    file = folder / name
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(file, "it cannot be read as JSON", "download the model again") from error
    if not isinstance(content, dict):
        raise ModelError(file, "it is not a JSON object", "download the model again")
    return content


def weight_files(folder: Path) -> list[Path]:
    """The safetensors of a model.

    Raises
    ------
    ModelError : there are none, with a word on pickles where those are all there is.
    """
    files = sorted(folder.glob("*.safetensors"))
    if files:
        return files
    pickled = sorted(f.name for f in folder.iterdir() if f.suffix in _PICKLES)
    if pickled:
        problem = f"its weights are a pickle ({pickled[0]}), which could run foreign code"
        raise ModelError(folder, problem, "convert them to safetensors")
    raise ModelError(folder, "it holds no weights (*.safetensors)", "download the model again")


class Pretrained(NamedTuple):
    """A transformers model of a folder.

    Parameters
    ----------
    files : its weights.
    model : in evaluation mode, float32.
    missing : names of the weights that the files lack and that are thus random.
    preprocessor : content of its preprocessor's file.
    """

    folder: Path
    files: list[Path]
    model: Any
    missing: set[str]
    preprocessor: dict[str, Any]


def weights_facts(kind: str, files: Sequence[Path], modules: Sequence[Any], **known: Any) -> ModelFacts:
    """What is known of a model by its weights, one hash over all files, and the modules that are used."""
    hashes = [file_sha256(file) for file in files]
    return ModelFacts(
        kind=kind,
        sha256=hashes[0] if len(hashes) == 1 else hashlib.sha256("\n".join(hashes).encode()).hexdigest(),
        parameters=count_parameters(modules),
        size_bytes=sum(file.stat().st_size for file in files),
        **known,
    )


def folder_of(request: Request) -> Path:
    """The folder of a request's model, as `model_folder`."""
    return request.folder or model_folder(request.entry.source, request.entry.revision)


def pretrained(auto_class: str, request: Request, *, may_lack: tuple[str, ...] = ()) -> Pretrained:
    """The transformers model of a request.

    Parameters
    ----------
    auto_class : such as `AutoModel`.
    may_lack : beginnings of names of weights without which the model is still of use.

    Raises
    ------
    ModelError : it brings its own code, transformers cannot make it, or weights are missing from the files or
        of another shape.
    MissingExtraError : transformers is not installed.
    """
    folder = folder_of(request)
    if "auto_map" in read_json(folder, CONFIG):
        raise ModelError(folder, "it needs its own code to be run", "use a model that its library knows")
    files = weight_files(folder)
    transformers = need("transformers", extra="benchmark", purpose="A Hugging Face model")
    from safetensors import SafetensorError

    loader = getattr(transformers, auto_class)
    with quiet():
        try:
            model, info = loader.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                output_loading_info=True,
                dtype="float32",
            )
        except (*_UNLOADABLE, SafetensorError) as error:
            said = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            said = said.replace(str(folder), folder.name)
            if "mismatched" in str(error) or "size mismatch" in str(error):
                problem = "its weights have other shapes than its config.json states"
                raise ModelError(folder, problem, "give the config.json that belongs to them") from error
            raise ModelError(folder, f"it cannot be loaded ({said})", "check the model's files") from error
    bad = next((name for name, one in model.named_parameters() if not one.isfinite().all()), None)
    if bad is not None:
        problem = f"its weights hold values that are not finite numbers ({bad})"
        raise ModelError(folder, problem, "download the model again; it would give only NaN")
    missing = set(info.get("missing_keys", ())) | {str(k[0]) for k in info.get("mismatched_keys", ())}
    random = {name for name in missing if not any(part in name for part in may_lack)}
    if random:
        problem = f"{len(random)} of its weights are not in its files ({sorted(random)[0]}, ...)"
        raise ModelError(folder, problem, "give a complete model of this kind")
    return Pretrained(folder, files, model.eval(), missing, read_json(folder, PREPROCESSOR))


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers from writing about weights and progress: what counts is raised or said."""
    from transformers.utils import logging as hf_logging

    level, bars = hf_logging.get_verbosity(), hf_logging.is_progress_bar_enabled()
    hf_logging.set_verbosity(logging.CRITICAL)
    hf_logging.disable_progress_bar()
    try:
        yield
    finally:
        hf_logging.set_verbosity(level)
        if bars:
            hf_logging.enable_progress_bar()


def _snapshot(source: str, revision: str | None) -> Path:
    hub = need("huggingface_hub", extra="benchmark", purpose="A model of the hub")
    from huggingface_hub import errors

    try:
        return Path(hub.snapshot_download(source, revision=revision, allow_patterns=_WANTED))
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, errors.HFValidationError) as error:
        reasons = {
            "RepositoryNotFoundError": "no such model on the hub",
            "GatedRepoError": "the hub gives it only to users who accepted its terms",
            "RevisionNotFoundError": "no such revision of it on the hub",
            "HFValidationError": "no such folder, and no valid id of the hub",
        }
        fallback = "not in the hub's cache, and the hub cannot be reached or must not be (HF_HUB_OFFLINE)"
        problem = reasons.get(type(error).__name__, fallback)
        raise ModelError(source, problem, "check the id, or give a folder with the model's files") from error
    except OSError as error:
        raise ModelError(
            source, "the hub cannot be reached", "give a folder with the model's files"
        ) from error
