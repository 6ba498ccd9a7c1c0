"""A bundle, or its segmenter, as others take it: nnU-Net v2's folder, a MONAI bundle, a hub's repository."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from importlib import resources
from itertools import combinations
from pathlib import Path
from typing import Any, Final, Literal

import torch

from aiene.errors import ModelError, OutputError
from aiene.models.bundle import CARD, Bundle, verify_bundle
from aiene.provenance import version
from aiene.results.atomic import elsewhere, make_folder, write_bytes, write_json, writing
from aiene.segment.segmenter import Segmenter, load_segmenter

To = Literal["nnunet", "monai", "hub"]
_RESEARCH: Final = "Research software, not a medical device."


def export_bundle(bundle: Bundle, to: To, out: Path) -> Path:
    """Write a bundle for another tool.

    Parameters
    ----------
    to : `nnunet`: a folder for `nnUNetv2_predict_from_modelfolder -m`; `monai`: a MONAI bundle of the
        segmenter; `hub`: the whole bundle as a repository of the Hugging Face hub, with its card.
    out : a folder that is not there yet, or empty.

    Returns
    -------
    The folder.

    Raises
    ------
    ModelError : the bundle is damaged, or cannot be told in that form.
    OutputError : something lies in `out`, or it cannot be written.
    """
    verify_bundle(bundle)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise OutputError(out, "something lies there", "name a folder that does not exist yet with -o")
    with elsewhere("name another folder with -o"):
        make_folder(out)
        _WRITERS[to](bundle, out)
    return out


def _nnunet(bundle: Bundle, out: Path) -> None:
    with writing(out):
        shutil.copytree(bundle.segmenter_folder, out, dirs_exist_ok=True)
    settings = bundle.card.segmenter
    folds = " ".join(map(str, settings.folds))
    mirroring = "" if settings.mirroring else " --disable_tta"
    command = (
        f"nnUNetv2_predict_from_modelfolder -i IMAGES -o LABELS -m . -f {folds} -chk {settings.checkpoint} "
        f"-step_size {settings.step_size}{mirroring}"
    )
    _write_notes(bundle, out / "README.md", f"```sh\n{command}\n```\n{_input(bundle)}")


def _monai(bundle: Bundle, out: Path) -> None:
    chosen = bundle.card.segmenter
    segmenter = load_segmenter(
        bundle.segmenter_folder, folds=chosen.folds, checkpoint=chosen.checkpoint, mirroring=chosen.mirroring
    )
    if len(segmenter.networks) != 1 or segmenter.plan.from_v1:
        raise ModelError(
            bundle.path, "its segmenter has several folds, or comes from nnU-Net v1", "export it --to nnunet"
        )
    plans = json.loads((bundle.segmenter_folder / "plans.json").read_text(encoding="utf-8"))
    labels = json.loads((bundle.segmenter_folder / "dataset.json").read_text(encoding="utf-8"))["labels"]
    with writing(out):
        for name in ("configs", "models", "docs"):
            (out / name).mkdir()
        torch.save(segmenter.networks[0].state_dict(), out / "models" / "model.pt")
    write_json(out / "configs" / "metadata.json", _metadata(bundle, segmenter, labels))
    write_json(out / "configs" / "inference.json", _inference(bundle, segmenter, plans))
    write_bytes(out / "LICENSE", f"{bundle.card.licence}\n".encode())
    _write_notes(
        bundle,
        out / "docs" / "README.md",
        "```sh\npython -m monai.bundle run run --bundle_root . --config_file configs/inference.json\n```\n"
        + _input(bundle),
    )


def _hub(bundle: Bundle, out: Path) -> None:
    with writing(out):
        for name in [CARD, *bundle.card.files]:
            (out / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bundle.path / name, out / name)
    card = bundle.card
    head = {
        "license": card.licence.lower(),
        "library_name": "aiene",
        "pipeline_tag": "image-segmentation",
        "tags": ["medical", "ct", "head-and-neck", "lymph-nodes", "research-only"],
        "model-index": [{"name": card.name, "results": _figures(card.provenance)}],
    }
    hashes = "\n".join(f"| `{name}` | `{sha}` |" for name, sha in card.files.items())
    front = json.dumps(head, indent=2, ensure_ascii=False)  # JSON is YAML
    text = (
        f"---\n{front}\n---\n# {card.name} {card.version}\n**{card.notice}** {_RESEARCH}\n\n"
        f"{card.intended_use}\n\n"
        f"```sh\naiene models import --name {card.name} hf://ORGANISATION/REPOSITORY\n"
        f"aiene run INPUT -o OUT --model {card.name}\n```\n\n"
        f"| File | SHA-256 |\n| --- | --- |\n{hashes}\n"
    )
    write_bytes(out / "README.md", text.encode())


_WRITERS: Final[Mapping[To, Callable[[Bundle, Path], None]]] = {
    "nnunet": _nnunet,
    "monai": _monai,
    "hub": _hub,
}


def _input(bundle: Bundle) -> str:
    fed = "in HU" if bundle.card.segmenter.intensities == "hu" else "scaled to [0, 1]"
    return (
        f"It takes the crop `aiene run --keep-prepared` leaves (`prepared.nii.gz`, 1 x 1 x 3 mm, {fed}), "
        "not a whole CT: registration to the template, crop, classifier and the split into nodes come with "
        f"`aiene run`.{_without_cores(bundle)}"
    )


def _without_cores(bundle: Bundle) -> str:
    cores = bundle.card.segmenter.cores
    if not cores:
        return ""
    names = " and ".join(f"{name} by {core:g}" for name, core in sorted(cores.items()))
    return (
        " Of what it calls, `aiene run` keeps only the pieces (voxels that touch, corners too) in which the "
        f"logit leads somewhere: {names}. This program does not: drop the other pieces, or expect more "
        "false ones."
    )


def _write_notes(bundle: Bundle, file: Path, words: str) -> None:
    card = bundle.card
    text = (
        f"# Segmenter of the bundle {card.name} {card.version}\n**{card.notice}** {_RESEARCH}\n\n"
        f"{card.intended_use}\n\n"
        f"{words}\n\nLicence {card.licence}; SHA-256 of the bundle {bundle.sha256}.\n"
    )
    write_bytes(file, text.encode())


def _template(name: str) -> dict[str, Any]:
    """A file of a MONAI bundle; what is null in it depends on the segmenter."""
    text = (resources.files("aiene.models") / "monai_export" / f"{name}.json").read_text(encoding="utf-8")
    content: dict[str, Any] = json.loads(text)
    return content


def _metadata(bundle: Bundle, segmenter: Segmenter, labels: dict[str, Any]) -> dict[str, Any]:
    card, patch = bundle.card, list(segmenter.plan.patch)
    content = _template("metadata")
    data = content["network_data_format"]
    hu = card.segmenter.intensities == "hu"
    data["inputs"]["image"] |= {
        "format": "hounsfield" if hu else "magnitude",
        "spatial_shape": patch,
        "value_range": [-1024, 3071] if hu else [0, 1],
    }
    data["outputs"]["pred"] |= {
        "num_channels": segmenter.plan.classes,
        "spatial_shape": patch,
        "channel_def": {str(value): name for name, value in labels.items() if isinstance(value, int)},
    }
    return content | {
        "version": card.version,
        "changelog": {card.version: f"written by aiene {version()}"},
        "pytorch_version": str(torch.__version__).split("+")[0],
        "name": f"AI-ENE segmenter, {card.name}",
        "description": f"{card.notice} {card.intended_use} {_RESEARCH}",
        "copyright": f"licence {card.licence}",
        "intended_use": card.intended_use,
    }


def _inference(bundle: Bundle, segmenter: Segmenter, plans: dict[str, Any]) -> dict[str, Any]:
    """What `monai.bundle run` reads: the network by its class, monai's sliding window, the mirror images."""
    architecture = next(iter(plans["configurations"].values()))["architecture"]
    imported = set(architecture["_kw_requires_import"])
    words = {
        name: f"$__import__('pydoc').locate('{value}')" if name in imported and value is not None else value
        for name, value in architecture["arch_kwargs"].items()
    }
    axes = segmenter.mirror_axes
    mirrors = [[], *([a + 2 for a in c] for n in range(1, len(axes) + 1) for c in combinations(axes, n))]
    content = _template("inference")
    overlap = 1 - bundle.card.segmenter.step_size
    content["sliding"] |= {"roi_size": list(segmenter.plan.patch), "overlap": overlap}
    network = {
        "_target_": architecture["network_class_name"],
        "input_channels": 1,
        "num_classes": segmenter.plan.classes,
        "deep_supervision": False,
    }
    return content | {"mirrors": mirrors, "network_def": {**network, **words}}


def _figures(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The figures of a card as the hub's `model-index`; only numbers, by their place in the card."""
    found: list[dict[str, Any]] = []

    def look(content: Any, place: tuple[str, ...]) -> None:
        if isinstance(content, dict):
            for key, value in content.items():
                look(value, (*place, str(key)))
        elif isinstance(content, int | float) and not isinstance(content, bool):
            found.append({"type": ".".join(place), "value": content})

    for key, value in provenance.items():
        if "evaluation" in str(key):
            look(value, (str(key),))
    if not found:
        return []
    return [
        {
            "task": {"type": "image-segmentation"},
            "dataset": {"name": "as stated in the card's provenance", "type": "other"},
            "metrics": found,
        }
    ]
