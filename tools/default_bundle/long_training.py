"""The segmenter's long training: crops come while it learns; what was killed goes on where it was.

    python -m tools.default_bundle.long_training crops --work DIR --openkbp DIR [--more DIR] [--plantings 24]
    python -m tools.default_bundle.long_training train --work DIR [--start CHECKPOINT]
    python -m tools.default_bundle.long_training curve --work DIR [--forever]
    python -m tools.default_bundle.long_training hard --work DIR

crops  plants disease into every host again and again: by real numbers (`disease`), by the older planter
       (round nodes), and not at all. A crop that is there stays.
train  learns from the crops there are, and looks for new ones every some hundred steps.
curve  measures the averaged weights on the validation crops: a line of `curve.jsonl` a checkpoint, and the
       places of some training CTs that are wrongly called tumour, for training to look at again.
hard   looks for such places in every training CT, by the checkpoint that is there: a round of its own, some
       seconds of a core a crop. What it finds is taken up by a training that runs.

Each may run by itself, side by side, `nice`d. The 20 kept-out CTs (`holdout`) take no part.
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import json
import os
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch

from aiene.errors import AieneError
from aiene.preprocess.preprocess import read_template
from aiene.preprocess.profile import OPEN
from aiene.preprocess.registration import Template
from tools.default_bundle import fit_segmenter
from tools.default_bundle.bundle_card import DEFAULT_BUNDLE, NECK_CENTRE, note_start
from tools.default_bundle.curve import follow, search_all
from tools.default_bundle.disease_crops import Kind, Made, make_crop
from tools.default_bundle.fit_segmenter import Lesson
from tools.default_bundle.growing_store import GrowingStore, add_crop, has_crop
from tools.default_bundle.hosts import Host, bright_above_muscle, read_host
from tools.default_bundle.phantom_crops import NECK_SEED, make_neck_crop
from tools.default_bundle.real_crops import real_patients

SEED = 20_261_129
CROPS_SEED = 20_261_130
KINDS: tuple[Kind, ...] = ("disease", "plain", "round", "disease", "disease", "disease", "round", "disease")
"""Of a host's plantings, in turn: five by real numbers, two round, one plain of eight."""
SHARES = {"disease": 0.5, "round": 0.27, "plain": 0.13, "necks": 0.1}
"""Of the segmenter's patches."""
VALIDATION_PLANTINGS = 3
NECKS, FIRST_NECKS = 80, 16
TURN = 7
"""Plantings of a host that follow each other: reading it takes as long as one."""


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["crops", "train", "curve", "hard"])
    parser.add_argument("--work", type=Path, required=True, help="folder outside the repository")
    parser.add_argument("--openkbp", type=Path, help="real CTs, some of them kept out")
    parser.add_argument("--more", type=Path, help="further real CTs, none of them kept out")
    parser.add_argument("--plantings", type=int, default=24, help="crops a host")
    parser.add_argument("--start", type=Path, help="checkpoint of a trained model to start from")
    parser.add_argument("--steps", type=int, default=fit_segmenter.Schedule.steps)
    parser.add_argument(
        "--cooling", type=int, help="last steps, at a falling rate; a fifth of all if not given"
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--forever", action="store_true", help="measure every new checkpoint")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    with alone(options.work, options.what):
        if options.what == "crops":
            crops(options)
        elif options.what == "train":
            train(options)
        elif options.what == "hard":
            search_all(options.work)
        else:
            follow(options.work, forever=options.forever)


@contextmanager
def alone(work: Path, what: str) -> Iterator[None]:
    """Keep a second process from doing the same in a folder; the system lets go of it at any kill.

    Raises
    ------
    SystemExit : one is at it.
    """
    with (work / f"{what}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise SystemExit(
                f"{work}: another process runs `{what}` here; let it work, or end it first"
            ) from None
        yield


def crops(options: argparse.Namespace) -> None:
    """All crops that are not there yet: one planting of every host, then the next."""
    template = read_template(DEFAULT_BUNDLE / "template.nrrd", OPEN, NECK_CENTRE)
    people = real_patients(options.openkbp)
    first = [options.openkbp / p for p in people.training]
    back = [options.openkbp / p for p in people.validation]
    further: list[Path] = []
    if options.more is not None:
        further = sorted(f for f in options.more.glob("pt_*") if (f / "ct.nii.gz").exists())
    work = options.work
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:

        def plant(folders: list[Path], turn: range) -> list[Future[str | None]]:
            return [pool.submit(plant_host, f, work, template, turn) for f in folders]

        def necks(numbers: range) -> list[Future[str | None]]:
            return [pool.submit(plant_neck, work, NECK_SEED + k) for k in numbers]

        jobs = [  # every kind soon, so that a training that starts early forgets none
            *plant(first, range(2)),
            *(pool.submit(plant_validation, f, work, template) for f in back),
            *necks(range(FIRST_NECKS)),
            *plant(further, range(3)),
            *plant(first, range(2, 3)),
            *necks(range(FIRST_NECKS, NECKS)),
        ]
        for start in range(3, options.plantings, TURN):
            jobs += plant([*first, *further], range(start, min(start + TURN, options.plantings)))
        problems = [problem for job in jobs if (problem := job.result()) is not None]
    (work / "failures.json").write_text(json.dumps(sorted(set(problems)), indent=1), encoding="utf-8")


def plant_host(folder: Path, work: Path, template: Template, turn: range) -> str | None:
    """Some plantings of a training host; why there are none, if so."""
    torch.set_num_threads(1)
    missing = [
        k for k in turn if not has_crop(crops_folder(work) / KINDS[k % len(KINDS)], f"{folder.name}_{k}")
    ]
    if not missing:
        return None
    try:
        host = read_host(folder, template)
    except AieneError as error:
        return f"{folder.name}: {error}"
    for k in missing:
        kind = KINDS[k % len(KINDS)]
        made = make_crop(host, _rng(folder.name, k), kind)
        add_crop(crops_folder(work) / kind, f"{folder.name}_{k}", made.crop, facts_of(host, made))
    return None


def plant_validation(folder: Path, work: Path, template: Template) -> str | None:
    """The plantings of a validation patient: both planters, and the CT as it is."""
    torch.set_num_threads(1)
    host = read_host(folder, template)
    for kind in ("disease", "round", "plain"):
        for k in range(VALIDATION_PLANTINGS if kind != "plain" else 1):
            name = f"{folder.name}_{k}"
            if has_crop(crops_folder(work) / "validation" / kind, name):
                continue
            made = make_crop(host, _rng(folder.name, 1_000 + k), kind, near=False, in_target=0.0)
            add_crop(crops_folder(work) / "validation" / kind, name, made.crop, facts_of(host, made))
    return None


def plant_neck(work: Path, seed: int) -> str | None:
    """A phantom of a neck."""
    torch.set_num_threads(1)
    if not has_crop(crops_folder(work) / "necks", f"{seed}"):
        add_crop(crops_folder(work) / "necks", f"{seed}", make_neck_crop(seed), {})
    return None


def crops_folder(work: Path) -> Path:
    """Where the crops lie, one folder a kind, those of the validation patients apart."""
    return work / "crops"


def facts_of(host: Host, made: Made) -> dict[str, object]:
    """What evaluations sort a crop's nodes by."""
    return {
        "host": host.name,
        "enhanced": made.enhanced,
        "bright_above_muscle_hu": round(bright_above_muscle(host.patient), 1),
        "spacing_mm": list(host.patient.ct.grid.spacing),
        "levels": [n.level for n in made.nodes],
        "short_axes_mm": [round(n.short_axis_mm, 2) for n in made.nodes],
        "above_muscle_hu": [round(n.lesion.hu - host.patient.muscle_hu, 1) for n in made.nodes],
        "lobes": [len(n.lesion.lobes) for n in made.nodes],
        "primary": made.primary is not None,
    }


def _rng(name: str, planting: int) -> np.random.Generator:
    return np.random.default_rng((CROPS_SEED, zlib.crc32(name.encode()), planting))


def train(options: argparse.Namespace) -> None:
    """Learn until the schedule's end, or a kill."""
    if options.start is not None and not (options.work / fit_segmenter.STATE).exists():
        note_start(options.work, options.start)
    fit_segmenter.train_together(
        functools.partial(lessons_of, options.work),
        fit_segmenter.Schedule(
            steps=options.steps,
            cooling=max(1, options.steps // 5) if options.cooling is None else options.cooling,
        ),
        options.work,
        SEED,
        options.processes,
        start=options.start,
    )


def lessons_of(work: Path) -> list[Lesson]:
    """The crops that are there now, and the places in them that fooled the network."""
    hard_file = work / "hard_places.json"
    hard = json.loads(hard_file.read_text(encoding="utf-8")) if hard_file.exists() else {}
    lessons = []
    for kind, share in SHARES.items():
        store = GrowingStore(crops_folder(work) / kind)
        if not len(store):
            continue
        number = {name: k for k, name in enumerate(store.names)}
        places = tuple((number[name], z, y, x) for name, z, y, x in hard.get(kind, []) if name in number)
        lessons.append(Lesson(store, share, places))
    if not lessons:
        raise FileNotFoundError(f"{work} holds no crops yet: run the `crops` command first")
    return lessons


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
