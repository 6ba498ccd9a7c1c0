"""Seconds and peak memory of each stage on large CTs: thin slices, a whole body, own masks of bytes.

    OMP_NUM_THREADS=1 python -m tools.measurements.large_inputs [--only thin|body|masks] [--no-networks]
                                                                   [--store]

Makes a phantom of 6, 4 and 4 times coarser voxels, repeats these with noise on top, and writes it as NIfTI.
`thin` is 600 x 512 x 512 of 0.6 x 0.45 x 0.45 mm, `body` 1000 x 512 x 512 of 1.5 x 0.98 x 0.98 mm, `masks` a
CT and label map of 700 x 512 x 512. The stages are those of `aiene run` with the default bundle, one after
the other in one process; peaks are the largest resident set within a stage (Linux). `--store` writes
`results/large_inputs.json`, keeping what other calls stored there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch

from aiene.device import keep_freed_memory
from aiene.geometry.grid import Grid, Triple, Volume, to_sitk
from aiene.ingest.case import Case
from aiene.ingest.find import find_cases
from aiene.ingest.fingerprint import content_sha256
from aiene.ingest.masks import read_mask
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.pipeline import load_networks
from aiene.preprocess.preprocess import load_preparation, prepare, to_native
from aiene.results.nifti import write_nifti
from tools.measurements.pipeline_speed import Meter

RESULTS = Path(__file__).parent / "results" / "large_inputs.json"
TIMES = (6, 4, 4)
KINDS: dict[str, tuple[int, Triple]] = {
    "thin": (600, (0.6, 0.45, 0.45)),
    "body": (1000, (1.5, 0.98, 0.98)),
    "masks": (700, (0.6, 0.45, 0.45)),
}


def main() -> None:
    """Measure every kind asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", choices=tuple(KINDS))
    parser.add_argument("--no-networks", action="store_true", help="reading and preparation alone")
    parser.add_argument("--store", action="store_true")
    words = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for kind in KINDS if words.only is None else (words.only,):
        meter = Meter()
        with tempfile.TemporaryDirectory() as folder:
            measure(meter, kind, Path(folder), networks=not words.no_networks)
        stored[kind] = {"threads": torch.get_num_threads(), "rows": meter.rows}
        if words.store:
            RESULTS.write_text(json.dumps(stored, indent=1) + "\n")


def measure(meter: Meter, kind: str, folder: Path, *, networks: bool) -> None:
    """The stages of one CT."""
    with get_context("spawn").Pool(1) as apart:  # so that this process holds nothing of it
        voxels = int(np.prod(apart.apply(write_inputs, (kind, folder))))
    print(f"{kind}: {voxels / 1e6:.0f} million voxels, {2 * voxels / 2**30:.2f} GiB of int16")
    (case,) = meter(
        kind, "find", lambda: [c for c in find_cases(folder / "ct.nii")[0] if isinstance(c, Case)]
    )
    ct = meter(kind, "read", lambda: read_case(case))
    meter(kind, "hash", lambda: content_sha256(case.files))
    if kind == "masks":
        meter(kind, "read mask", lambda: read_mask(folder / "mask.nii.gz", like=ct.volume.grid))
        return
    bundle = find_bundle("default")
    preparation = load_preparation(bundle)
    ready = meter(kind, "prepare", lambda: prepare(ct, preparation.template, preparation.profile))
    if not networks:
        return
    loaded = meter(kind, "load", lambda: load_networks(bundle, torch.device("cpu"), own_masks=False))
    segmenter = loaded.segmenter
    if segmenter is None:
        raise ValueError("no segmenter")
    seen = ready.crop if ready.crop_hu is None else ready.crop_hu
    labels = meter(kind, "segment", lambda: segmenter(seen))
    native = meter(kind, "native", lambda: to_native(labels, ready))
    meter(kind, "write", lambda: write_nifti(native, folder / "labels.nii.gz"))


def write_inputs(kind: str, folder: Path) -> tuple[int, int, int]:
    """A CT, and for `masks` its label map; the size."""
    slices, spacing = KINDS[kind]
    coarse: Triple = tuple(s * n for s, n in zip(spacing, TIMES, strict=True))  # type: ignore[assignment]
    size = (-(-min(slices, 700) // TIMES[0]), 512 // TIMES[1], 512 // TIMES[2])
    made = make_phantom(915_001, PhantomSettings(size=size, spacing=coarse, nodes=(3, 3)))
    whole = (slices, 512, 512)
    grid = replace(
        made.ct.grid.crop((0, 0, 0), size), size=whole, spacing=spacing, origin=made.ct.grid.origin
    )
    ct = repeated(made.ct, grid, np.random.default_rng(1))
    sitk.WriteImage(to_sitk(ct), str(folder / "ct.nii"))  # uncompressed: noise takes a minute to compress
    if kind == "masks":
        write_nifti(repeated(made.labels, grid, None), folder / "mask.nii.gz")
    return whole


def repeated(volume: Volume, grid: Grid, random: np.random.Generator | None) -> Volume:
    """A volume of coarse voxels on a fine grid; below its end its first slice goes on."""
    slices, rows, columns = grid.size
    fine = np.empty(grid.size, dtype=volume.array.dtype)
    top = slices - volume.array.shape[0] * TIMES[0]
    for k in range(slices):
        plane = volume.array[max(0, k - top) // TIMES[0]]
        fine[k] = plane.repeat(TIMES[1], axis=0).repeat(TIMES[2], axis=1)[:rows, :columns]
        if random is not None:
            fine[k] += random.integers(-20, 20, (rows, columns), dtype=fine.dtype)
    return Volume(fine, grid)


if __name__ == "__main__":
    main()
