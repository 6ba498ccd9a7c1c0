"""`aiene models`: list, show, verify, import and export model bundles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from aiene.cli.console import AsJson, echo, echo_json, user_errors
from aiene.errors import UsageError

app = typer.Typer(help="List, show, verify, import and export model bundles.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name or folder of a bundle.")]


@app.command("list")
def list_models(as_json: AsJson = False) -> None:
    """List the installed model bundles."""
    from aiene.models.bundle import Bundle, all_bundles, models_folder

    found = list(all_bundles())
    if as_json:
        rows = [
            {"name": b.card.name, "version": b.card.version, "profile": b.card.profile, "sha256": b.sha256}
            if isinstance(b, Bundle)
            else {"error": str(b)}
            for b in found
        ]
        echo_json({"folder": str(models_folder()), "models": rows})
        return
    for bundle in found:
        if isinstance(bundle, Bundle):
            card = bundle.card
            echo(f"{card.name} {card.version}: profile {card.profile}, {card.licence}. {card.notice}")
        else:
            echo(f"(not usable) {bundle}", err=True)


@app.command()
def show(name: Name, as_json: AsJson = False) -> None:
    """Show the card of a bundle."""
    from aiene.models.bundle import find_bundle

    with user_errors():
        bundle = find_bundle(name)
    card = bundle.card.model_dump(mode="json")
    if as_json:
        echo_json({**card, "path": str(bundle.path), "sha256": bundle.sha256})
        return
    echo(f"path: {bundle.path}\nsha256: {bundle.sha256}")
    for key, value in card.items():
        shown = json.dumps(value, indent=2, ensure_ascii=False) if isinstance(value, dict) else value
        echo(f"{key}: {shown}")


@app.command()
def verify(name: Name, as_json: AsJson = False) -> None:
    """Check the hash of every file of a bundle, and load its networks and template."""
    import torch

    from aiene.models.bundle import find_bundle, verify_bundle
    from aiene.pipeline import load_networks
    from aiene.preprocess.preprocess import load_preparation

    with user_errors():
        bundle = find_bundle(name)
        verify_bundle(bundle)
        load_preparation(bundle)
        load_networks(bundle, torch.device("cpu"), own_masks=False)
    files = len(bundle.card.files)
    if as_json:
        echo_json({"name": bundle.card.name, "sha256": bundle.sha256, "files": files, "good": True})
    else:
        echo(f"{bundle.card.name}: {files} files match the card; both networks and the template load.")


@app.command("import")
def import_model(
    name: Annotated[str, typer.Option(help="Name of the new bundle.")],
    source: Annotated[
        str | None,
        typer.Argument(metavar="[hf://ORG/NAME]", help="A complete bundle on the Hugging Face hub."),
    ] = None,
    segmenter: Annotated[
        Path | None,
        typer.Option(help="Model folder of nnU-Net v1, trained-model folder of v2, or a ZIP of one."),
    ] = None,
    classifier: Annotated[Path | None, typer.Option(help="Keras 2 file (.h5) of the DualNet.")] = None,
    template: Annotated[
        Path | None, typer.Option(help="Template CT to which patients are registered.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(help="Take classifier and template from this bundle instead."),
    ] = None,
    profile: Annotated[
        Literal["published", "open"], typer.Option(help="How CTs were prepared for these weights.")
    ] = "published",
    rescue: Annotated[
        bool,
        typer.Option(
            "--rescue/--no-rescue", help="Try other starting positions where a registration is judged poor."
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--out", help="Folder of the new bundle (default: NAME in the models folder)."),
    ] = None,
    nodes_label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|N", help="Label of lymph nodes in the segmenter, if its name does not tell."
        ),
    ] = None,
    primary_label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|N|none", help="Label of the primary tumour; none: the segmenter has no such label."
        ),
    ] = None,
    intensities: Annotated[
        Literal["auto", "crop", "hu"],
        typer.Option(
            help="Input of the segmenter: the crop scaled to [0, 1], or in HU; auto: as in its training."
        ),
    ] = "auto",
    folds: Annotated[
        str | None, typer.Option(metavar="0,1,..|all", help="Folds to use (default: all numbered folds).")
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            metavar="FILE", help="Checkpoint file of each fold of a v2 model, such as checkpoint_best.pth."
        ),
    ] = None,
    mirroring: Annotated[
        bool | None,
        typer.Option(
            "--mirroring/--no-mirroring",
            help="Average over mirror images, as nnU-Net does (default: no, or as in --base).",
        ),
    ] = None,
    allow_empty: Annotated[
        bool,
        typer.Option("--allow-empty", help="Accept a v2 model that finds nothing in synthetic necks."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a bundle from a trained segmenter (nnU-Net v1 or v2), a Keras .h5 and a template, and check it."""
    from aiene.models.bundle import find_bundle
    from aiene.models.importers.bundle import Choices, import_bundle, import_into

    if source is not None:
        _import_whole(name, source, out, as_json, alone=segmenter is None and base is None)
        return
    with user_errors():
        if segmenter is None:
            raise UsageError(
                "give --segmenter, or the address of a whole bundle, hf://ORGANISATION/REPOSITORY."
            )
        choices = Choices(
            nodes_label=nodes_label,
            primary_label=primary_label,
            intensities=None if intensities == "auto" else intensities,
            folds=None if folds is None else _folds(folds),
            checkpoint=checkpoint,
            mirroring=mirroring,
            allow_empty=allow_empty,
        )
        if base is not None:
            if classifier is not None or template is not None:
                raise UsageError(
                    "--base brings classifier and template; leave --classifier and --template out."
                )
            done = import_into(
                name=name, segmenter=segmenter, base=find_bundle(base), out=out, choices=choices
            )
        elif classifier is None or template is None:
            raise UsageError("give --classifier and --template, or --base BUNDLE to take both from a bundle.")
        else:
            done = import_bundle(
                name=name,
                segmenter=segmenter,
                classifier=classifier,
                template=template,
                profile=profile,
                rescue=rescue,
                out=out,
                choices=choices,
            )
    if as_json:
        checks = {"segmenter": done.segmenter, "classifier": done.classifier}
        echo_json({"path": str(done.bundle.path), "sha256": done.bundle.sha256, **checks})
        return
    echo(f"{done.bundle.card.name}: imported into {done.bundle.path}")
    echo(f"    segmenter: {done.segmenter}")
    echo(f"    classifier: {done.classifier}")


def _import_whole(name: str, source: str, out: Path | None, as_json: bool, *, alone: bool) -> None:
    from aiene.models.bundle import import_from_hub

    with user_errors():
        if not alone:
            raise UsageError(f"{source} is a whole bundle; leave --segmenter and --base out.")
        bundle = import_from_hub(name, source, out)
    if as_json:
        echo_json({"path": str(bundle.path), "sha256": bundle.sha256})
        return
    echo(f"{bundle.card.name}: imported into {bundle.path}; every file matches its card.")


@app.command("export")
def export_model(
    name: Name,
    to: Annotated[
        Literal["nnunet", "monai", "hub"],
        typer.Option(
            "--to", help="Format: an nnU-Net v2 folder, a MONAI bundle, or a Hugging Face repository."
        ),
    ],
    out: Annotated[Path, typer.Option("-o", "--out", help="A folder that does not exist yet.")],
) -> None:
    """Export a bundle, or its segmenter, for other tools."""
    from aiene.models.bundle import find_bundle
    from aiene.models.exporters import export_bundle

    with user_errors():
        bundle = find_bundle(name)
        export_bundle(bundle, to, out)
    echo(f"{bundle.card.name}: written to {out}. {bundle.card.notice}")


def _folds(words: str) -> tuple[int | Literal["all"], ...]:
    """`0,2` or `all`."""
    found: list[int | Literal["all"]] = []
    for word in (w.strip() for w in words.split(",")):
        if word != "all" and not (word.isascii() and word.isdecimal()):
            raise UsageError(f"--folds {words}: give numbers with commas between them, as 0,1,2, or all.")
        found.append("all" if word == "all" else int(word))
    if len(set(found)) < len(found):
        raise UsageError(f"--folds {words}: a fold is named twice.")
    return tuple(found)
