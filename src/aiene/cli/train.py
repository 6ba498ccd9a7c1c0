"""`aiene train`: both networks on a group's own contours and pathology."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from aiene.cli.console import RESEARCH_ONLY, DeviceOption, SchedulerOption, stderr_console, user_errors

if TYPE_CHECKING:
    from aiene.training.dataset import LeftOut, Step

app = typer.Typer(
    help="Train the networks on your own contours and pathology, into a model bundle.", no_args_is_help=True
)

Images = Annotated[Path, typer.Option("--images", help="Folder of CTs, as `aiene run` takes it.")]
Labels = Annotated[
    Path,
    typer.Option(
        "--labels",
        help="Folder of label maps, named by case id, on the grid of the CT: 1 GTVp, 2 GTVn (or OUT/review).",
    ),
]
Out = Annotated[
    Path,
    typer.Option(
        "-o",
        "--out",
        help="Folder of the model bundle: new, or of an earlier training. Work files are in OUT.training.",
    ),
]
Patients = Annotated[
    Path | None,
    typer.Option(help="CSV with case_id, patient_id and, optionally, fold."),
]
From = Annotated[
    str | None,
    typer.Option(
        "--from",
        help="Start from the weights of this bundle: a name or folder. Without it, a bundle that a training "
        "wrote to OUT says how the CTs are prepared, else the default bundle does.",
    ),
]
Continue = Annotated[bool, typer.Option("--continue", help="Continue a training that was stopped.")]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Workers of --scheduler local, or jobs of slurm (default: one per core)."),
]
Seed = Annotated[int, typer.Option(min=0, help="Random seed.")]


@app.command()
def segmenter(
    images: Images,
    labels: Labels,
    out: Out,
    patients: Patients = None,
    fold: Annotated[int, typer.Option(min=0, help="Fold to leave out of the training and validate on.")] = 0,
    epochs: Annotated[int, typer.Option(min=1, help="Number of epochs (nnU-Net uses 1000).")] = 1000,
    iterations: Annotated[int, typer.Option(min=1, help="Gradient steps per epoch.")] = 250,
    device: DeviceOption = "auto",
    start_from: From = None,
    go_on: Continue = False,
    seed: Seed = 0,
    gpu_memory: Annotated[
        float, typer.Option(min=1, help="GPU memory in GB for which nnU-Net plans patch and network.")
    ] = 8.0,
    processes: Annotated[
        int,
        typer.Option(
            min=0,
            help="Worker processes of nnU-Net; with 0 a training on the CPU is reproducible bit for bit.",
        ),
    ] = 0,
    export: Annotated[
        bool,
        typer.Option(
            "--export-dataset",
            help="Only write OUT/Dataset501_ENE, to train with nnU-Net elsewhere, and exit.",
        ),
    ] = False,
    jobs: Jobs = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Train an nnU-Net v2 segmenter on the same crops that a run makes."""
    with user_errors():
        from aiene.cluster import crews_of
        from aiene.device import resolve_device
        from aiene.training.segmenter import SegmenterTraining, export_dataset, train_segmenter

        settings = SegmenterTraining(
            images, _label_maps(labels), out, patients, fold, epochs, iterations,
            str(resolve_device(device)), go_on,
            start_from, seed, gpu_memory, processes,
        )  # fmt: skip
        with crews_of(scheduler, jobs, sees=(images, labels)):
            if export:
                dataset = export_dataset(settings, _teller(), _note)
            else:
                bundle, dataset = train_segmenter(settings, _teller(), _note)
        if export:
            said = f"Dataset in {dataset.folder}; bring the trained model back by `aiene models import`."
        else:
            said = f"Bundle in {bundle.path}. {bundle.card.notice}"
    _end(said, dataset.left_out)


@app.command()
def classifier(
    images: Images,
    labels: Labels,
    nodes: Annotated[
        Path,
        typer.Option(
            "--nodes", help="CSV: case_id, name or point (LPS mm), pos, ene (0, 1, empty: unknown)."
        ),
    ],
    out: Out,
    patients: Patients = None,
    epochs: Annotated[int, typer.Option(min=1, help="Maximum number of epochs; training stops early.")] = 60,
    steps: Annotated[int, typer.Option(min=1, help="Gradient steps per epoch.")] = 40,
    batch: Annotated[int, typer.Option(min=2, help="Nodes per gradient step.")] = 8,
    patience: Annotated[
        int, typer.Option(min=1, help="Stop after this many epochs without a better validation AUC.")
    ] = 12,
    widths: Annotated[Literal["small", "published"], typer.Option(help="Size of the network.")] = "small",
    threshold: Annotated[
        Literal["youden", "sensitivity"], typer.Option(help="Rule for choosing the ENE threshold.")
    ] = "youden",
    sensitivity: Annotated[
        float,
        typer.Option(min=0.01, max=1, help="Required sensitivity, for the rule sensitivity."),
    ] = 0.9,
    device: DeviceOption = "auto",
    start_from: From = None,
    go_on: Continue = False,
    seed: Seed = 0,
    jobs: Jobs = None,
    scheduler: SchedulerOption = None,
) -> None:
    """Train the DualNet classifier of node positivity and ENE, cross-validated by patient."""
    with user_errors():
        from aiene.cluster import crews_of
        from aiene.device import resolve_device
        from aiene.training.classifier import ClassifierTraining, train_classifier
        from aiene.training.classifier_fit import FitSettings

        fit = FitSettings(
            epochs=epochs,
            patience=patience,
            steps=steps,
            batch=batch,
            seed=seed,
            device=str(resolve_device(device)),
        )
        settings = ClassifierTraining(
            images,
            _label_maps(labels),
            nodes,
            out,
            patients,
            widths,
            start_from,
            threshold,
            sensitivity,
            go_on,
            fit,
        )
        with crews_of(scheduler, jobs, sees=(images, labels)):
            bundle, left_out = train_classifier(settings, _teller(), _note)
    _end(f"Bundle in {bundle.path}. {bundle.card.notice}", left_out)


def _label_maps(labels: Path) -> Path:
    """The folder of label maps that is meant, with a word on what of a review is in it."""
    from aiene.results.reviews import are_reviewed, reviewed_masks

    masks = reviewed_masks(labels)
    if are_reviewed(masks) and masks.is_dir():
        count = len(list(masks.glob("*.nii.gz")))
        _note(f"{count} cases that {masks.parent.name} has accepted or corrected; other CTs are not used.")
    return masks


def _teller() -> Callable[[Step], None]:
    """A line for every step, with the time that is left."""
    console = stderr_console()

    def tell(step: Step) -> None:
        said = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in step.said.items())
        count = f" {step.done}/{step.of}" if step.of else ""
        left = "" if step.seconds_left is None else f" ({_minutes(step.seconds_left)} left)"
        console.print(f"{step.stage}{count}{': ' if said else ''}{said}{left}")

    return tell


def _note(said: str) -> None:
    stderr_console().print(f"note: {said}", style="yellow")


def _minutes(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{max(1, minutes)} min"


def _end(said: str, left_out: tuple[LeftOut, ...]) -> None:
    console = stderr_console()
    for case in left_out:
        console.print(f"left out: {case.case_id}: {case.reason}", style="yellow")
    console.print(f"{said} {RESEARCH_ONLY}", style="bold")
    raise typer.Exit(int(bool(left_out)))
