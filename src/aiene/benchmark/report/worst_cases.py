"""The cases in which each model did worst: which they are, and their slices as a section of the report.

A slice is shown as radiologists look at it, whatever the order of the array's axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from aiene.benchmark.comparators.slice_segmenters import AxialView
from aiene.benchmark.config import LABEL_VALUES
from aiene.benchmark.dataset import read_kept
from aiene.benchmark.records import image_of, key_of, model_files, truth_files
from aiene.benchmark.report.results_reader import Source, value
from aiene.errors import AieneError
from aiene.geometry.grid import Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.read import read_case
from aiene.report.document import Figure, Item, Section, Text, by_column
from aiene.report.style import INK, label, new_figure, place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing


Picture = npt.NDArray[Any]


def worst_slice(truth: Picture, prediction: Picture) -> int:
    """The slice where truth and prediction differ in most voxels; of equals the middle one of the first run.

    Parameters
    ----------
    truth, prediction : bool, (slices, rows, columns). Where they nowhere differ, the slice with most truth.
    """
    wrong = np.count_nonzero(truth != prediction, axis=(1, 2))
    if not wrong.any():
        wrong = np.count_nonzero(truth, axis=(1, 2))
    if not wrong.any():
        return len(wrong) // 2
    worst = np.flatnonzero(wrong == wrong.max())
    run = worst[worst - worst[0] == np.arange(len(worst))]
    return int(run[0] + run[-1]) // 2


def window(hu: Picture, centre: float, width: float) -> npt.NDArray[np.float64]:
    """HU as grey from 0 to 1; what is no number is black."""
    low = centre - width / 2
    grey = (np.nan_to_num(hu.astype(np.float64), nan=low, posinf=low + width, neginf=low) - low) / width
    return np.clip(grey, 0.0, 1.0)


def field(
    masks: Picture, spacing: tuple[float, float], *, margin: float, least: float
) -> tuple[slice, slice]:
    """A square piece of a slice around what is in a mask, as far as the slice reaches.

    Parameters
    ----------
    masks : bool, (rows, columns); the whole slice where it is empty.
    spacing : mm along rows and columns.
    margin : mm kept around.
    least : mm that the piece is wide and high at least.
    """
    if not masks.any():
        return slice(0, masks.shape[0]), slice(0, masks.shape[1])
    spans = [np.flatnonzero(masks.any(axis=1 - axis)) for axis in (0, 1)]
    middles = [(span[0] + span[-1]) / 2 for span in spans]
    reach = max((span[-1] - span[0] + 1) * mm for span, mm in zip(spans, spacing, strict=True)) + 2 * margin
    half = max(reach, least) / 2
    pieces = []
    for middle, mm, size in zip(middles, spacing, masks.shape, strict=True):
        start = max(0, round(middle - half / mm))
        stop = min(size, round(middle + half / mm) + 1)
        pieces.append(slice(start, stop))
    return pieces[0], pieces[1]


EACH = 3
WINDOW = (40.0, 350.0)  # HU, soft tissue of the neck: centre, width
_MARGIN_MM, _LEAST_MM = 20.0, 110.0
_TRUTH, _PREDICTION = "#E69F00", "#56B4E9"
_SIDE = 2.3


class Worst(NamedTuple):
    """A case with a low Dice."""

    case_id: str
    dice: float


class Scene(NamedTuple):
    """What is drawn of a case.

    Parameters
    ----------
    slice_number : from the lowest slice, 1 the first.
    grey : CT in the window, None where it no longer exists.
    outlines : bool maps by label and by who says it, truth or prediction.
    pixel : mm along rows and columns.
    """

    case: Worst
    slice_number: int
    slices: int
    grey: npt.NDArray[np.float64] | None
    outlines: tuple[tuple[str, str, npt.NDArray[np.bool_]], ...]
    pixel: tuple[float, float]


WorstCases = tuple[Figure | None, list[tuple[str, str]]]
"""The chart of a model and the cases of which there is no picture, as (case, reason)."""


def worst_of(source: Source, model: str, name: str, count: int = EACH) -> list[Worst]:
    """The cases of a model with the lowest Dice of a label, the lowest first."""
    rows = source.rows_of(model)
    found = [Worst(r["case_id"], dice) for r in rows if (dice := value(r, f"dice_{name}")) is not None]
    return sorted(found, key=lambda one: (one.dice, one.case_id))[:count]


def worst_cases(source: Source, name: str) -> dict[str, WorstCases]:
    """The pictures of every model that segments.

    Each CT is read once, and only one is held at a time.

    Parameters
    ----------
    name : label by whose Dice cases are chosen.
    """
    keys = {str(model["name"]): str(model.get("key", "")) for model in source.segmenters}
    chosen = {model: worst_of(source, model, name) for model in keys}
    scenes: dict[tuple[str, str], Scene] = {}
    without: dict[str, list[tuple[str, str]]] = {model: [] for model in keys}
    for case_id in dict.fromkeys(one.case_id for cases in chosen.values() for one in cases):
        ct = _ct(image_of(source.folder, case_id))
        for model, cases in chosen.items():
            for case in (one for one in cases if one.case_id == case_id):
                try:
                    scenes[model, case_id] = _scene(source.folder, keys[model], case, name, ct)
                except (AieneError, ValueError) as error:
                    without[model].append((case_id, str(error).rstrip(".")))
    result = {}
    for model, cases in chosen.items():
        drawn = [scenes[model, one.case_id] for one in cases if (model, one.case_id) in scenes]
        chart = _chart(model, keys[model], name, drawn) if drawn else None
        result[model] = chart, without[model]
    return result


def _chart(model: str, key: str, name: str, scenes: Sequence[Scene]) -> Figure:
    blind = any(scene.grey is None for scene in scenes)
    return Figure(
        f"worst_{key_of(key)}",
        f"{model}: lowest Dice of {name}",
        "Axial slice with most voxels in which truth and prediction differ, CT in a soft-tissue window "
        f"(centre {WINDOW[0]:.0f}, width {WINDOW[1]:.0f} HU), R: the patient's right. Solid: ground truth; "
        "dashed: prediction; thick: GTVn; thin: GTVp. Bar: 20 mm."
        + (" Where a picture has no CT, its file can no longer be read." if blind else ""),
        lambda: _draw(scenes, name),
        by_column(
            ("case_id", f"dice_{name}", "slice", "slices"),
            tuple((s.case.case_id, s.case.dice, s.slice_number, s.slices) for s in scenes),
        ),
        photographic=True,
    )


def _scene(folder: Path, key: str, case: Worst, name: str, ct: Volume | None) -> Scene:
    masks = truth_files(folder, case.case_id)[1], model_files(folder, key, case.case_id)[1]
    if not all(file.exists() for file in masks):
        raise ValueError("its masks no longer exist")
    truth, prediction = map(read_kept, masks)
    if truth.grid.size != prediction.grid.size:
        raise ValueError("its masks are on different grids")
    view = AxialView.of(truth.grid)
    true, said = view.turn(truth.array), view.turn(prediction.array)
    number = worst_slice(true == LABEL_VALUES[name], said == LABEL_VALUES[name])
    piece = field(
        (true[number] > 0) | (said[number] > 0), view.spacing[1:], margin=_MARGIN_MM, least=_LEAST_MM
    )
    grey = None
    if ct is not None and ct.grid.size == truth.grid.size:
        grey = window(view.turn(ct.array)[number][piece], *WINDOW)
    outlines = tuple(
        (which, who, array[number][piece] == number_of)
        for who, array in (("truth", true), ("prediction", said))
        for which, number_of in LABEL_VALUES.items()
    )
    return Scene(case, number + 1, len(true), grey, outlines, view.spacing[1:])


def _ct(file: Path | None) -> Volume | None:
    """The CT of a file or folder; None where it cannot be read any more."""
    if file is None:
        return None
    try:
        found = [case for case in find_cases(file)[0] if isinstance(case, Case)]
        return read_case(found[0]).volume if len(found) == 1 else None
    except AieneError:
        return None


def _draw(scenes: Sequence[Scene], name: str) -> Drawing:
    figure = new_figure(0.1 + EACH * (_SIDE + 0.15), _SIDE + 0.62)
    for column, scene in enumerate(scenes):
        axes = place(figure, 0.1 + column * (_SIDE + 0.15), 0.06, _SIDE, _SIDE)
        _picture(axes, scene)
        title = label(scene.case.case_id, 32, lines=1)
        axes.set_title(f"{title}\n", fontsize=8.5, pad=5)
        axes.text(
            0, 1.015, f"Dice of {name} {scene.case.dice:.3f}, slice {scene.slice_number} of {scene.slices}",
            transform=axes.transAxes, fontsize=7.5, va="bottom", color=INK,
        )  # fmt: skip
    return figure


def _picture(axes: Axes, scene: Scene) -> None:
    from matplotlib.patheffects import Normal, Stroke

    rows, columns = scene.outlines[0][2].shape
    high, wide = rows * scene.pixel[0], columns * scene.pixel[1]
    grey = np.full((rows, columns), 0.35) if scene.grey is None else scene.grey
    axes.imshow(
        grey, cmap="gray", vmin=0, vmax=1, extent=(0, wide, high, 0), interpolation="bilinear", aspect="equal"
    )
    for which, who, mask in scene.outlines:
        _outline(axes, mask, scene.pixel, who, 1.8 if which == "GTVn" else 0.9)
    axes.plot([wide * 0.04, wide * 0.04 + 20], [high * 0.96] * 2, color="white", linewidth=2.2)
    axes.text(0.03, 0.97, "R", transform=axes.transAxes, ha="left", va="top", fontsize=9, color="white",
              path_effects=[Stroke(linewidth=2, foreground="black"), Normal()])  # fmt: skip
    if scene.grey is None:
        axes.text(wide / 2, high * 0.05, "no CT", color="white", ha="center", va="top", fontsize=8)
    side = max(high, wide)
    axes.set_xlim((wide - side) / 2, (wide + side) / 2)
    axes.set_ylim((high + side) / 2, (high - side) / 2)
    axes.set_facecolor("black")
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)


def _outline(
    axes: Axes, mask: npt.NDArray[np.bool_], pixel: tuple[float, float], who: str, width: float
) -> None:
    from matplotlib.patheffects import Normal, Stroke
    from skimage.measure import find_contours

    padded = np.pad(mask, 1).astype(np.float64)
    for line in find_contours(padded, 0.5):
        y, x = (line[:, 0] - 0.5) * pixel[0], (line[:, 1] - 0.5) * pixel[1]
        axes.plot(
            x, y, color=_TRUTH if who == "truth" else _PREDICTION, linewidth=width,
            linestyle="-" if who == "truth" else (0, (3.2, 1.6)),
            path_effects=[Stroke(linewidth=width + 1.2, foreground="black", alpha=0.6), Normal()],
        )  # fmt: skip


# Section of the report


def worst(source: Source) -> Section:
    """The chapter."""
    label = source.main_label
    if label is None or not source.segmenters:
        return Section("worst", "Worst cases", (Text("No model gave a segmentation."),))
    items: list[Item] = [
        Text(
            f"For each model the up to {EACH} cases with the lowest Dice of {label}. A case that failed has "
            "no picture; it is listed under what was left out."
        )
    ]
    for model, (chart, without) in worst_cases(source, label).items():
        items += [chart] if chart is not None else []
        if without:
            points = tuple(f"{case}: {reason}." for case, reason in without)
            items.append(Text(f"{model}, without a picture:", points, "note"))
        elif chart is None:
            items.append(Text(f"{model}: no case with a Dice of {label}.", kind="note"))
    return Section("worst", "Worst cases", tuple(items))
