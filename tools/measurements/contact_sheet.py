"""Two pictures of a run, to look at: registered crops, and native CTs with the nodes' outlines.

    python -m tools.measurements.contact_sheet OUT --cts FOLDER [--cases ID ...] [--to FOLDER]

OUT must have been run with `--keep-prepared`; FOLDER is the input of that run. Without `--cases`, twelve are
taken at equal steps. Writes `crops.png` (middle axial, coronal and sagittal slice of each crop) and
`native.png` (the axial slice with most of the nodes, and a coronal slice likewise) beside
the run, or where `--to` says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import SimpleITK as sitk
from matplotlib.figure import Figure

from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case

SHOWN = 12


def main() -> None:
    """Draw both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--cts", type=Path, required=True)
    parser.add_argument("--cases", nargs="*")
    parser.add_argument("--to", type=Path)
    words = parser.parse_args()
    done = sorted(f.parent.name for f in words.out.glob("cases/*/prepared.nii.gz"))
    chosen = words.cases or [done[round(i)] for i in np.linspace(0, len(done) - 1, min(SHOWN, len(done)))]
    target = words.to or words.out
    crops(words.out, chosen, target / "crops.png")
    found = {case.case_id: case for case in find_cases(words.cts)[0] if isinstance(case, Case)}
    native(words.out, {case_id: found[case_id] for case_id in chosen}, target / "native.png")


def crops(out: Path, chosen: list[str], to: Path) -> None:
    """The middle slices of each crop, anterior up, head up, patient's left to the right of the picture."""
    figure, axes = plt.subplots(3, len(chosen), figsize=(2 * len(chosen), 6), squeeze=False)
    for column, case_id in enumerate(chosen):
        array = _array(out / "cases" / case_id / "prepared.nii.gz")
        z, y, x = (n // 2 for n in array.shape)
        planes = (array[z], array[::-1, y], array[::-1, :, x])
        for row, plane in enumerate(planes):
            axes[row, column].imshow(plane, cmap="gray", vmin=0, vmax=1, aspect=1 if row == 0 else 3)
            axes[row, column].axis("off")
        axes[0, column].set_title(case_id, fontsize=8)
    _save(figure, to)


def native(out: Path, chosen: dict[str, Case], to: Path) -> None:
    """Native CT slices with the labels outlined: nodes red, primary tumour yellow."""
    figure, axes = plt.subplots(2, len(chosen), figsize=(2 * len(chosen), 4.4), squeeze=False)
    for column, (case_id, case) in enumerate(chosen.items()):
        ct = read_case(case).volume
        labels = _array(out / "cases" / case_id / "labels.nii.gz")
        z, y = _busiest(labels, 0), _busiest(labels, 1)
        up = slice(None, None, -1 if ct.grid.direction[0][2] > 0 else 1)
        shape = ct.grid.spacing[0] / ct.grid.spacing[2]
        for row, (plane, mask, aspect) in enumerate(
            ((ct.array[z], labels[z], 1.0), (ct.array[up, y], labels[up, y], shape))
        ):
            axes[row, column].imshow(plane, cmap="gray", vmin=-175, vmax=275, aspect=aspect)
            for value, colour in ((1, "yellow"), (2, "red")):
                if (mask == value).any():
                    axes[row, column].contour(mask == value, [0.5], colors=colour, linewidths=0.7)
            axes[row, column].axis("off")
        axes[0, column].set_title(case_id, fontsize=8)
    _save(figure, to)


def _busiest(labels: np.ndarray, axis: int) -> int:
    """The slice across an axis with most labelled voxels; the middle one where there is none."""
    count = (labels != 0).sum(axis=tuple(a for a in range(3) if a != axis))
    return int(count.argmax()) if count.any() else labels.shape[axis] // 2


def _array(file: Path) -> np.ndarray:
    return np.asarray(sitk.GetArrayFromImage(sitk.ReadImage(str(file))))


def _save(figure: Figure, to: Path) -> None:
    figure.tight_layout(pad=0.3)
    figure.savefig(to, dpi=110)
    plt.close(figure)
    print(to)


if __name__ == "__main__":
    main()
