"""What a benchmark adds to a leaderboard: one entry a model, no patients."""

from __future__ import annotations

from typing import Any

from aiene.benchmark.leaderboard import Entry


def entries_of(summary: dict[str, Any]) -> list[Entry]:
    """One entry for each model that took part.

    Parameters
    ----------
    summary : content of a `benchmark_summary_<time>.json`.
    """
    machine = summary["machine"]
    where = f"{machine['gpu'] or machine['cpu']}, {machine['cores']} cores"
    return [
        Entry(
            data_sha256=summary["data"]["sha256"],
            model=model["name"],
            model_sha256=model["sha256"],
            version=summary["aiene"],
            machine=where,
            created=summary["created"],
            n_cases=model["cases"]["ok"],
            metrics=metrics_of(model),
            note="; ".join(model["said"]),
        )
        for model in summary["models"]
        if model["status"] == "ok"
    ]


def metrics_of(model: dict[str, Any]) -> dict[str, float | None]:
    """The figures of a model by name; the mean where there are several cases."""
    metrics: dict[str, float | None] = {}
    for label, figures in (model["segmentation"] or {}).items():
        for name, summary in figures.items():
            metrics[f"{name}_{label}"] = summary["mean"]["value"]
    for label, estimate in (model["aggregated_dice"] or {}).items():
        metrics[f"aggregated_dice_{label}"] = estimate["value"]
    found = model["detection"] or {}
    for name in ("sensitivity", "precision", "f1", "false_per_case"):
        if name in found:
            metrics[f"node_{name}"] = found[name]["value"]
    for track, figures in (model["classification"] or {}).items():
        for name in ("auc", "average_precision", "brier"):
            if figures and name in figures:
                metrics[f"{name}_{track}"] = figures[name]["value"]
    resources = model["resources"]
    metrics["total_seconds"] = resources["seconds"]["total"]["median"]["value"]
    metrics["peak_rss_mib"] = resources["peak_rss_mib"]["max"]
    if "GTVn" in (model["segmentation"] or {}):
        metrics["dice"] = metrics["dice_GTVn"]
    return metrics
