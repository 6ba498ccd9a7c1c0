"""A bundle from the Hugging Face hub: `hf://ORGANISATION/REPOSITORY`, checked against its own hashes."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

from aiene.errors import ModelError, OutputError, UsageError
from aiene.extras import need
from aiene.models.bundle import CARD, NAME, Bundle, models_folder, read_bundle, verify_bundle
from aiene.results.atomic import make_folder, writing

SCHEME: Final = "hf://"
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
            f"{address}: give hf://ORGANISATION/REPOSITORY, or hf://ORGANISATION/REPOSITORY@REVISION."
        )
    if not re.fullmatch(NAME, name):
        raise UsageError(f"--name {name}: letters, digits, dots, dashes and underlines only.")
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
