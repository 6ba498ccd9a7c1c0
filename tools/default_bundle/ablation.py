"""What the planter by real numbers and the organs bring to the segmenter, each told apart.

    python -m tools.default_bundle.ablation --work DIR --start CHECKPOINT [--steps N] [--arm ARM]

DIR is the work folder of `long_training`: its crops are what every arm learns from and is measured on. The
arms start from the same weights, take the same steps with the same seed, and each differs from the one
before in one thing:

round    nodes of the older planter, tumour alone.
disease  nodes and primaries by real numbers, in the shares of the long training; tumour alone.
organs   the same, with the organs as further classes.

The measure is that of the curve: the averaged weights on the validation crops, at one false node a case.
Writes `DIR/ablation/ARM/` (checkpoints; a killed arm goes on) and `DIR/ablation.json`.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from aiene.segment.segmenter import load_segmenter
from tools.default_bundle.curve import measure
from tools.default_bundle.fit_segmenter import TUMOUR, Lesson, Schedule, train_together, write_nnunet_folder
from tools.default_bundle.growing_store import Crops
from tools.default_bundle.long_training import SEED, lessons_of
from tools.default_bundle.organs import IGNORE
from tools.default_bundle.phantom_crops import Crop

ARMS = ("round", "disease", "organs")


class TumourAlone(Crops):
    """The same crops with their organs as background.

    Parameters
    ----------
    crops : with organs.
    """

    def __init__(self, crops: Sequence[Crop]) -> None:
        self.crops = crops

    def __len__(self) -> int:
        return len(self.crops)

    def at(self, index: int) -> Crop:
        """With another copy of its labels."""
        crop = self.crops[index]
        organ = (crop.labels >= TUMOUR) & (crop.labels != IGNORE)
        return replace(crop, labels=np.where(organ, 0, crop.labels).astype(np.uint8), organs=())


def lessons_of_arm(work: Path, arm: str) -> list[Lesson]:
    """What an arm learns from; without the hard places, which another training found."""
    lessons = [replace(lesson, hard=()) for lesson in lessons_of(work)]
    if arm == "organs":
        return lessons
    lessons = [replace(lesson, crops=TumourAlone(lesson.crops)) for lesson in lessons]
    if arm == "disease":
        return lessons
    disease, older, *others = lessons
    return [replace(older, share=disease.share + older.share), *others]


def main() -> None:
    """Train and measure each arm that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--start", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=800, help="of each arm")
    parser.add_argument("--arm", choices=ARMS, action="append")
    parser.add_argument("--processes", type=int, default=1)
    words = parser.parse_args()
    torch.set_num_threads(1)
    schedule = Schedule(steps=words.steps, cooling=words.steps // 4, warm_up=words.steps // 16)
    table = words.work / "ablation.json"
    for arm in words.arm or ARMS:
        folder = words.work / "ablation" / arm
        folder.mkdir(parents=True, exist_ok=True)
        lessons = functools.partial(lessons_of_arm, words.work, arm)
        train_together(lessons, schedule, folder, SEED, words.processes, start=words.start)
        write_nnunet_folder(folder, folder / "model", half=False)
        figures = measure(words.work, load_segmenter(folder / "model"))
        told = json.loads(table.read_text(encoding="utf-8")) if table.exists() else {}
        told[arm] = {"steps": words.steps, **figures}
        table.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        print(arm, json.dumps(figures), flush=True)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
