"""Seconds and peak memory of exporting one case of a usual size as each kind of DICOM object.

    python -m tools.measurements.dicom_export [--slices 180] [--pixels 512] [--nodes 8] [--out RESULT.json]

Writes a series of noise, plants balls for nodes and one for a primary tumour that overlaps the first, leaves
the folder that a run would have left, and exports it kind by kind: finding the source, building, reading
back, writing. CPU seconds do not depend on what else the machine does. Peak memory is the largest resident
set within a kind (Linux: the mark is set back before each). The result is printed as JSON and, with --out,
kept.
"""

from __future__ import annotations

import argparse
import json
import platform
import shutil
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from aiene.device import available_cores
from aiene.export.run import export_run
from aiene.geometry.grid import Grid, Volume
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.read import read_case
from aiene.phantom.phantom import write_dicom_series
from aiene.results.records import CaseArrays, CaseResult, NodeResult
from aiene.results.store import RunStore

KINDS = ("dicom-seg", "dicom-sr", "rtstruct", "secondary-capture")


def main() -> None:
    """Write, export, tell."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--slices", type=int, default=180)
    parser.add_argument("--pixels", type=int, default=512)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--out", type=Path, default=None, help="JSON file for the result")
    words = parser.parse_args()
    import highdicom

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        out = write_run(Path(folder), words.slices, words.pixels, words.nodes)
        export_run(out, ["dicom-seg"])  # imports and the system's file cache
        for kinds in (*((kind,) for kind in KINDS), KINDS):
            shutil.rmtree(out / "cases/in/dicom", ignore_errors=True)
            Path("/proc/self/clear_refs").write_text("5")
            start, cpu = time.perf_counter(), time.process_time()
            summary = export_run(out, kinds)
            seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu
            if summary.exit_code:
                raise SystemExit(summary.rows[0].reason)
            size = sum((out / file).stat().st_size for file in summary.rows[0].files)
            rows.append(
                {
                    "kinds": " ".join(kinds),
                    "seconds": round(seconds, 2),
                    "cpu_seconds": round(cpu_seconds, 2),
                    "peak_gib": round(_peak_gib(), 2),
                    "megabytes": round(size / 1e6, 2),
                }
            )
    result: dict[str, Any] = {
        "slices": words.slices,
        "pixels": words.pixels,
        "nodes": words.nodes,
        "cores": available_cores(),
        "python": platform.python_version(),
        "highdicom": highdicom.__version__,
        "rows": rows,
    }
    text = json.dumps(result, indent=2) + "\n"
    sys.stdout.write(text)
    if words.out is not None:
        words.out.write_text(text, encoding="utf-8")


def write_run(folder: Path, slices: int, pixels: int, count: int) -> Path:
    """A series, and the folder that a run of it would have left."""
    grid = Grid((slices, pixels, pixels), (2.5, 0.9766, 0.9766), (-250.0, -250.0, 100.0))
    noise = np.random.default_rng(1).normal(30, 20, grid.size).astype(np.int16)
    noise[:, :20] = -1000
    write_dicom_series(Volume(noise, grid), folder / "in", name="benchmark^one")
    (case,) = (c for c in find_cases(folder / "in")[0] if isinstance(c, Case))
    ct = read_case(case)
    native = ct.volume.grid
    nodes, labels = np.zeros(native.size, np.uint16), np.zeros(native.size, np.uint8)
    for value in range(1, count + 1):
        share = value / (count + 1)
        nodes[ball(native, (share, 0.3 + 0.4 * share, 0.7 - 0.4 * share), 14.0)] = value
    labels[nodes > 0] = 2
    labels[ball(native, (1 / (count + 1), 0.36, 0.62), 16.0)] = 1
    store = RunStore(folder / "out")
    settings = {"input": str((folder / "in").resolve()), "ene_threshold": 0.3, "model": "none", "aiene": "0"}
    bundle = {"name": "none", "version": "1", "sha256": "0" * 64, "notice": "A benchmark."}
    store.open(settings, overwrite=False)
    started = datetime(2026, 1, 1, tzinfo=UTC).isoformat()
    store.write_run({"settings": settings, "bundle": bundle, "started": started})
    facts = {
        "input": {
            "kind": "dicom", "files": slices, "sha256": content_sha256(case.files), **ct.source,
        },
        "native": {
            "size_zyx": list(native.size),
            "spacing_zyx_mm": list(native.spacing),
            "origin_lps_mm": list(native.origin),
            "direction_zyx_lps": [list(v) for v in native.direction],
        },
    }  # fmt: skip
    found = tuple(node(native, nodes == value, value) for value in range(1, count + 1))
    result = CaseResult("in", "ok", nodes=found, has_primary=True, has_chosen=True, facts=facts)
    store.write_case(result, CaseArrays(Volume(labels, native), Volume(nodes, native)))
    return store.root


def ball(grid: Grid, centre: tuple[float, float, float], radius_mm: float) -> np.ndarray:
    """Voxels within a radius of a place given in shares of the grid."""
    axes = [
        (np.arange(n) - share * (n - 1)) * step
        for n, share, step in zip(grid.size, centre, grid.spacing, strict=True)
    ]
    z, y, x = np.ogrid[tuple(slice(n) for n in grid.size)]
    return np.asarray(axes[0][z] ** 2 + axes[1][y] ** 2 + axes[2][x] ** 2 <= radius_mm**2)


def node(grid: Grid, mask: np.ndarray, value: int) -> NodeResult:
    """A node's record."""
    volume = float(np.count_nonzero(mask) * grid.voxel_volume_mm3)
    x, y, z = (float(v) for v in grid.points(np.argwhere(mask).mean(axis=0)))
    return NodeResult(
        name=f"GTVn_{value:02d}",
        number=value,
        pos=0.9,
        ene=0.5,
        ene_classification=1,
        volume_before_mm3=volume,
        volume_after_mm3=volume,
        axes=None,
        contour_mm3=volume,
        centroid_lps_mm=(x, y, z),
        side="left",
        native_volume_mm3=volume,
        native_long_axis_mm=None,
        native_short_axis_mm=None,
        touches_crop_border=False,
        touches_ct_border=False,
    )


def _peak_gib() -> float:
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 2**20


if __name__ == "__main__":
    main()
