"""How the figures were made: data, machine, versions, settings, conventions."""

from __future__ import annotations

import json
from typing import Any

from aiene.benchmark.report.cells import TableBuilder, dig, shown, words
from aiene.benchmark.report.record import Section, Table, Text
from aiene.benchmark.report.source import Source


def methods(source: Source) -> Section:
    """The chapter."""
    return Section(
        "methods",
        "How it was done",
        (Text("Conventions", _conventions(source)), _facts(source), _settings(source)),
    )


def _conventions(source: Source) -> tuple[str, ...]:
    settings = source.summary["settings"]
    resamples, seed = settings.get("resamples"), settings.get("seed")
    iou = shown(settings.get("iou_threshold"), "plain")
    published = ", ".join(shown(one, "plain") for one in settings.get("ene_thresholds") or [])
    return (
        "Empty masks: where a label is in neither truth nor prediction, Dice, IoU, surface Dice and "
        "distances of the case are not defined and stay out of all means. Where only one of both is empty, "
        "Dice, IoU and surface Dice are 0, and distances count as the diagonal of the image.",
        "95 % Hausdorff: the larger of the two directed 95th percentiles between voxel centres of the "
        "surfaces; surface distance: the mean over both surfaces together; surface Dice: share of the "
        "surface, by area, within the tolerance.",
        "Volume error: prediction less truth; the best is 0, and ranks go by its distance from 0.",
        "Aggregated Dice: twice the shared voxels of all cases over the sum of all voxels of truth and "
        "prediction, as the HECKTOR challenge takes it.",
        f"Nodes: matched one to one by intersection over union of at least {iou}. Size classes go by the "
        "short axis in the axial plane.",
        "Extranodal extension: positive is a probability over the threshold, the model's own and the "
        f"published one ({published or 'none was set'}). End to end, a node that was "
        "missed counts as probability 0.",
        "Means of a model are over the cases that it finished; in comparisons and ranks a case that failed "
        "counts as an empty prediction, so that nothing is gained by failing.",
        f"Intervals: 95 %, by {resamples} bootstrap resamples of the patients (seed {seed}), so that the "
        "nodes and cases of a patient stay together; shares at a threshold by Wilson's method; areas under "
        "the ROC curve also by DeLong's.",
        "Ranks: by the mean, with ties sharing the better rank; stability over resamples of the patients.",
    )


def _facts(source: Source) -> Table:
    data, machine = source.summary["data"], source.summary["machine"]
    builder = TableBuilder("Data, machine and versions", ("What", "Value"))
    packages = machine.get("packages") or {}
    facts: list[tuple[str, Any]] = [
        ("Made", source.summary.get("created")),
        ("Hash of the data set (content of images, masks, ENE labels)", data.get("sha256")),
        ("Cases", ", ".join(str(one) for one in data.get("case_ids") or [])),
        ("Processor", machine.get("cpu")),
        ("Cores", machine.get("cores")),
        ("Memory (GiB)", machine.get("memory_gib")),
        ("Device", machine.get("device")),
        ("GPU", _plain(machine.get("gpu")) if machine.get("gpu") else "none"),
        ("System", " ".join(str(machine.get(n)) for n in ("system", "architecture") if machine.get(n))),
        ("Python", machine.get("python")),
        ("Packages", ", ".join(f"{name} {version}" for name, version in packages.items() if version)),
        ("Results", dig(source.summary, "files", "results")),
    ]
    for name, fact in facts:
        builder.row(words(name), words(fact))
    return builder.table()


def _settings(source: Source) -> Table:
    builder = TableBuilder("Settings", ("Setting", "Value"))
    for name, value in source.summary["settings"].items():
        if name == "models" and isinstance(value, list):
            for number, one in enumerate(value, start=1):
                given = {k: v for k, v in one.items() if v is not None} if isinstance(one, dict) else one
                builder.row(words(f"model {number}"), words(_plain(given)))
        else:
            builder.row(words(name), words(_plain(value)))
    return builder.table()


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_plain(one)}" for name, one in value.items())
    if isinstance(value, list):
        return ", ".join(_plain(one) for one in value)
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value)
