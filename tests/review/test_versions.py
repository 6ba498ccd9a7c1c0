"""Nothing is lost: versions are added, never changed; the tables tell of the latest."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest

from aiene.errors import InputError, UsageError
from aiene.results.reviews import StaleError, one_reader, reviewed_masks
from aiene.review.session import Change
from builders.export_runs import Run
from builders.reviews import CountingReview


def hashes(folder: Path) -> dict[str, str]:
    files = sorted(p for p in folder.rglob("*") if p.is_file() and ".aiene" not in p.parts)
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def without_the_second(review: CountingReview) -> np.ndarray:
    drawing = review.open("case").scene.labels.array.copy()
    drawing[drawing == 2] = 0
    return drawing


def test_a_correction_stands_beside_the_models_answer(run: Run) -> None:
    before = hashes(run.out)
    review = CountingReview(run.out)
    saved = review.save(
        "case", Change(without_the_second(review), 0, "corrected", "a vessel", rejected={2: "vessel"})
    )
    assert saved.number == 1
    assert saved.result.n_ai_ene == 1
    assert len(saved.result.nodes) == 1
    after = hashes(run.out)
    assert {name: after[name] for name in before} == before
    record = json.loads((run.out / "review/anna/cases/case/v0001/review.json").read_text())
    assert (record["reader"], record["reason"], record["edited"]) == ("anna", "a vessel", True)
    assert record["rejected"][0]["name"] == "GTVn_02"
    assert record["rejected"][0]["reason"] == "vessel"
    mask = np.asarray(nib.load(run.out / "review/anna/masks/case.nii.gz").dataobj).transpose(2, 1, 0)
    np.testing.assert_array_equal(mask == 2, run.nodes == 1)
    np.testing.assert_array_equal(mask == 1, (run.labels == 1) & (run.nodes == 0))


def test_a_node_that_nobody_touched_keeps_the_models_numbers(run: Run) -> None:
    """Measured anew, it would be called ENE: it is the largest one that is left."""
    review = CountingReview(run.out)
    drawing = review.open("case").scene.labels.array.copy()
    drawing[drawing == 1] = 0
    saved = review.save("case", Change(drawing, 0, "corrected", "a vessel"))
    (kept,) = saved.result.nodes
    second = run.result.nodes[1]
    assert kept.name == "GTVn_01"
    assert (kept.ene, kept.pos, kept.native_volume_mm3) == (second.ene, second.pos, second.native_volume_mm3)
    assert saved.result.n_ai_ene == 0
    touched = saved.scene.labels.array.copy()
    touched[tuple(np.argwhere(touched == 1)[0])] = 0
    again = review.save("case", Change(touched, 1, "corrected"))
    assert again.result.nodes[0].ene == 0.9
    assert again.result.n_ai_ene == 1


def test_accepting_changes_no_number(run: Run) -> None:
    review = CountingReview(run.out)
    saved = review.save("case", Change(None, 0, "accepted"))
    assert saved.result == run.result
    assert not saved.version.edited  # type: ignore[union-attr]


def test_each_save_is_a_version_and_none_changes(run: Run) -> None:
    review = CountingReview(run.out)
    review.save("case", Change(None, 0, "accepted"))
    first = hashes(run.out / "review/anna/cases/case/v0001")
    review.save("case", Change(without_the_second(review), 1, "corrected", "no node"))
    review.save("case", Change(None, 2, "set aside", "ask again"))
    assert hashes(run.out / "review/anna/cases/case/v0001") == first
    assert [v.status for v in review.store.history("case")] == ["accepted", "corrected", "set aside"]
    assert [v.edited for v in review.store.history("case")] == [False, True, True]


def test_the_second_window_is_told_and_nothing_is_lost(run: Run) -> None:
    one, other = CountingReview(run.out), CountingReview(run.out)
    drawing = without_the_second(other)
    other.open("case")
    one.save("case", Change(None, 0, "accepted"))
    with pytest.raises(StaleError, match="saved in another window"):
        other.save("case", Change(drawing, 0, "corrected"))
    assert len(one.store.history("case")) == 1
    saved = other.save("case", Change(drawing, 0, "corrected", anyway=True))
    assert saved.number == 2
    assert len(saved.result.nodes) == 1


def test_a_save_that_was_killed_leaves_the_versions_before(run: Run) -> None:
    review = CountingReview(run.out)
    review.save("case", Change(None, 0, "accepted"))
    half = run.out / "review/anna/cases/case/.0badc0ffee.partial"
    half.mkdir()
    (half / "labels.nii.gz").write_bytes(b"half")
    (run.out / "review/anna/cases/case/v0002").mkdir()  # made, and nothing in it yet
    again = CountingReview(run.out)
    assert again.open("case").number == 1
    assert again.save("case", Change(without_the_second(again), 1, "corrected")).number == 2


def test_tables_of_the_review_stand_beside_the_runs(run: Run) -> None:
    review = CountingReview(run.out)
    review.save("case", Change(without_the_second(review), 0, "corrected"))
    folder = run.out / "review" / "anna"
    patients, nodes = (pd.read_csv(folder / f"{name}.csv") for name in ("patients", "nodes"))
    assert patients[["case_id", "n_ai_ene", "n_ai_nodes", "review_status", "reader"]].values.tolist() == [
        ["case", 1, 1, "corrected", "anna"]
    ]
    assert len(nodes) == 1
    review.save("case", Change(None, 1, "set aside"))
    patients = pd.read_csv(folder / "patients.csv")
    assert patients["n_ai_ene"].isna().all()
    assert not (folder / "masks" / "case.nii.gz").exists()


def test_readers_see_their_own_work(run: Run) -> None:
    anna, ben = CountingReview(run.out, "anna"), CountingReview(run.out, "ben")
    anna.save("case", Change(without_the_second(anna), 0, "corrected"))
    assert len(ben.open("case").result.nodes) == 2
    assert one_reader(run.out).name == "anna"
    assert reviewed_masks(run.out / "review") == run.out / "review" / "anna" / "masks"
    ben.save("case", Change(None, 0, "accepted"))
    with pytest.raises(UsageError, match="anna, ben"):
        one_reader(run.out)
    assert reviewed_masks(run.out / "review" / "ben") == run.out / "review" / "ben" / "masks"
    with pytest.raises(UsageError, match="--reader"):
        CountingReview(run.out, "../else")


def test_a_version_that_was_damaged_is_told(run: Run) -> None:
    review = CountingReview(run.out)
    review.save("case", Change(None, 0, "accepted"))
    (run.out / "review/anna/cases/case/v0001/case.json").write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        CountingReview(run.out).open("case")


def test_a_blind_reader_begins_with_nothing(run: Run) -> None:
    review = CountingReview(run.out, blind=True)
    row = review.work_list()[0]
    assert (row["count"], row["nodes"], row["bits"]) == (None, None, None)
    drawing = np.zeros(review.open("case").scene.grid.size, np.uint8)
    drawing[2:5, 3:8, 3:9] = 1
    saved = review.save("case", Change(drawing, 0, "corrected"))
    assert len(saved.result.nodes) == 1
    mask = np.asarray(nib.load(run.out / "review/anna/masks/case.nii.gz").dataobj)
    assert (mask == 2).sum() == 3 * 5 * 6
    assert set(np.unique(mask)) == {0, 2}, "nothing of the model's"
