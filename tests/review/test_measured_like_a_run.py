"""A correction has the numbers that `aiene run --masks` gives to the same mask, with the real networks."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from aiene.cohort import run_cohort
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.results.nifti import write_nifti
from aiene.review.session import Change, Review

SMALL = PhantomSettings(size=(70, 120, 120), spacing=(4.0, 2.2, 2.2), nodes=(2, 3), tilt_degrees=2.0)


@pytest.mark.slow
def test_a_correction_is_measured_as_a_run_measures_own_masks(tmp_path: Path) -> None:
    phantom = make_phantom(910_001, SMALL)
    cts, masks, out = tmp_path / "cts", tmp_path / "masks", tmp_path / "out"
    for folder in (cts, masks):
        folder.mkdir()
    write_nifti(phantom.ct, cts / "one.nii.gz")
    write_nifti(phantom.labels, masks / "one.nii.gz")
    (before,) = run_cohort(cts, out, masks=masks, jobs=1).results
    assert len(before.nodes) >= 2

    review = Review(out, "anna", device="cpu")
    opened = review.open("one")
    drawing = opened.scene.labels.array.copy()
    value = before.nodes[-1].value
    drawing[drawing == value] = 0
    saved = review.save("one", Change(drawing, 0, "corrected", "no node"))
    assert len(saved.result.nodes) == len(before.nodes) - 1
    start = time.perf_counter()
    merged = review.save("one", Change(saved.scene.labels.array, 1, "corrected", joins=[(1, 2)]))
    print(f"a save took {time.perf_counter() - start:.1f} s")
    assert len(merged.result.nodes) == len(saved.result.nodes) - 1
    together = saved.result.nodes[0].native_volume_mm3 + saved.result.nodes[1].native_volume_mm3
    assert merged.result.nodes[0].native_volume_mm3 == pytest.approx(together)

    again = run_cohort(
        cts, tmp_path / "again", masks=out / "review" / "anna" / "masks", jobs=1, fg_labels="2"
    )
    (like,) = again.results
    assert [node.name for node in like.nodes] == [node.name for node in saved.result.nodes]
    for one, other in zip(like.nodes, saved.result.nodes, strict=True):
        assert one == other
    for name in ("n_ai_ene", "has_primary"):
        assert getattr(like, name) == getattr(saved.result, name)
    np.testing.assert_array_equal(saved.scene.labels.array > 0, drawing > 0)
