"""`aiene.predict` and `aiene.load_results`: the numbers and masks of `aiene run`, from any kind of image."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

import aiene
from aiene.errors import AieneError, InputError, UsageError
from aiene.geometry.grid import Grid, Volume, to_sitk
from aiene.ingest.find import find_cases
from aiene.ingest.read import checked, read_case
from aiene.ingest.readers.nifti import ct_of_image
from aiene.phantom.phantom import PhantomSettings, make_phantom
from aiene.pipeline import STAGES
from aiene.results.nifti import write_nifti

pytestmark = pytest.mark.slow


def oblique_grid() -> Grid:
    """An anisotropic stack turned about all three axes, its slices stored from the feet."""
    turn = sitk.Euler3DTransform()
    turn.SetRotation(0.07, -0.05, 0.09)
    columns = np.array(turn.GetMatrix()).reshape(3, 3).T
    x, y, z = (tuple(float(v) for v in column) for column in columns)
    return Grid((70, 120, 132), (4.0, 2.2, 1.9), (-110.0, -150.0, 40.0), (z, y, x))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Run:
    """A CT as a file, a file of its true contours, and the run of the CT."""

    file: Path
    contours: Path
    out: Path
    labels: Volume

    def labels_on(self, grid: Grid) -> Volume:
        return Volume(self.labels.array, grid)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("predict")
    phantom = make_phantom(910_001, PhantomSettings(grid=oblique_grid(), nodes=(2, 3), tilt_degrees=2.0))
    file, contours = folder / "one.nii.gz", folder / "contours.nii.gz"
    write_nifti(phantom.ct, file)
    write_nifti(phantom.labels, contours)
    aiene.run_cohort(str(file), str(folder / "out"), device="cpu", jobs=1)
    return Run(file, contours, folder / "out", phantom.labels)


@pytest.fixture(scope="module")
def predicted(run: Run) -> aiene.Result:
    """By the segmenter."""
    return aiene.predict(run.file, device="cpu")


@pytest.fixture(scope="module")
def contoured(run: Run) -> aiene.Result:
    """With the true contours."""
    return aiene.predict(run.file, device="cpu", masks=run.contours)


def the_same(one: aiene.Result, other: aiene.Result) -> None:
    assert one.grid == other.grid
    assert [node.record for node in one.nodes] == [node.record for node in other.nodes]
    np.testing.assert_array_equal(one.node_map.array, other.node_map.array)
    assert (one.n_ai_ene, one.warnings, one.rule) == (other.n_ai_ene, other.warnings, other.rule)


def test_a_file_gives_what_the_run_of_it_gave(run: Run, predicted: aiene.Result) -> None:
    (loaded,) = aiene.load_results(str(run.out))
    assert loaded.nodes
    the_same(loaded, predicted)
    facts = ("input", "content_sha256", "native", "crop", "to_native", "registration")
    recorded = json.loads((run.out / "cases" / "one" / "case.json").read_text())["facts"]
    assert json.loads(json.dumps({name: predicted.record.facts[name] for name in facts})) == recorded


def test_an_image_in_memory_gives_what_its_file_gave(run: Run, contoured: aiene.Result) -> None:
    from_file = nib.load(run.file)
    voxels = np.ascontiguousarray(np.asarray(from_file.dataobj).astype(np.int16).transpose(2, 1, 0))
    in_memory = nib.Nifti1Image(voxels.transpose(2, 1, 0), from_file.affine, from_file.header)
    the_same(aiene.predict(from_file, device="cpu", masks=run.contours), contoured)
    the_same(aiene.predict(in_memory, device="cpu", masks=run.contours), contoured)
    the_same(aiene.predict(voxels, contoured.grid, device="cpu", masks=run.contours), contoured)
    volume = Volume(voxels, contoured.grid)
    the_same(
        aiene.predict(to_sitk(volume), device="cpu", masks=to_sitk(run.labels_on(volume.grid))), contoured
    )


def test_simpleitk_reads_a_file_to_what_we_read(run: Run, contoured: aiene.Result, tmp_path: Path) -> None:
    """Bit for bit from MetaImage; of NIfTI its reader places voxels elsewhere in the seventh digit."""
    image = sitk.ReadImage(str(run.file))
    sitk.WriteImage(image, str(tmp_path / "ct.mha"))
    by_file = aiene.predict(tmp_path / "ct.mha", device="cpu", masks=run.contours)
    read = aiene.predict(sitk.ReadImage(str(tmp_path / "ct.mha")), device="cpu", masks=run.contours)
    the_same(read, by_file)
    for node, other in zip(read.nodes, contoured.nodes, strict=True):
        assert node.ene == pytest.approx(other.ene, abs=1e-3)
        np.testing.assert_allclose(node.centroid_lps_mm, other.centroid_lps_mm, atol=1e-3)


def test_a_scaled_file_is_read_alike_by_nibabel_and_by_name(run: Run, tmp_path: Path) -> None:
    """Stored values are not HU there: slope and intercept are the proxy's."""
    header = nib.Nifti1Header()
    header.set_slope_inter(0.5, -1024)
    values = np.asarray(nib.load(run.file).dataobj)
    stored = np.clip(np.rint((values + 1024) / 0.5), 0, 32767).astype(np.int16)
    header.set_data_dtype(np.int16)
    header.set_data_shape(stored.shape)
    header.set_sform(nib.load(run.file).affine, code=1)
    header.set_qform(nib.load(run.file).affine, code=1)
    header["vox_offset"] = 352
    file = tmp_path / "scaled.nii"
    file.write_bytes(header.binaryblock + bytes(4) + stored.tobytes(order="F"))
    by_name = read_case(find_cases(file)[0][0])  # type: ignore[arg-type]
    by_nibabel = checked(file, ct_of_image(file, nib.load(file)))
    assert by_name.pixel_type == by_nibabel.pixel_type
    assert by_name.volume.array.dtype == by_nibabel.volume.array.dtype
    np.testing.assert_array_equal(by_name.volume.array, by_nibabel.volume.array)
    assert (by_name.volume.grid, by_name.source) == (by_nibabel.volume.grid, by_nibabel.source)


def test_masks_lie_where_the_numbers_say(predicted: aiene.Result) -> None:
    for node in predicted.nodes:
        assert node.mask.dtype == bool
        assert node.mask.shape == predicted.grid.size
        assert node.mask.sum() * predicted.grid.voxel_volume_mm3 == pytest.approx(node.volume_mm3)
        middle = predicted.grid.points(np.argwhere(node.mask).mean(axis=0))
        np.testing.assert_allclose(node.centroid_lps_mm, middle, atol=1e-6)
        assert node.is_ene == predicted.rule.is_ene(node.pos, node.ene)
        assert node.short_axis_mm <= node.long_axis_mm  # type: ignore[operator]
    assert "not for patients" in predicted.notice
    counts = f"{len(predicted.nodes)} nodes, {predicted.n_ai_ene} AI-ENE"
    assert repr(predicted) == f"<Result one: ok, {counts}. {predicted.notice}>"
    assert len(repr(predicted.nodes)) < 1000
    together = sum(node.mask.astype(int) for node in predicted.nodes)
    assert together.max() == 1  # type: ignore[union-attr]


def test_own_masks_as_array_image_and_file_count_alike(run: Run, contoured: aiene.Result) -> None:
    nodes = run.labels.array == 2
    np.testing.assert_array_equal(contoured.node_map.array > 0, nodes)
    the_same(aiene.predict(run.file, masks=nodes, device="cpu"), contoured)
    the_same(aiene.predict(run.file, masks=Volume(nodes, contoured.grid), device="cpu"), contoured)
    with pytest.raises(InputError, match=r"the mask: its shape \(3, 4, 5\) \(z, y, x\) is not the CT's"):
        aiene.predict(run.file, masks=np.zeros((3, 4, 5), bool), device="cpu")
    ones = nodes.astype(np.uint8)
    with pytest.raises(InputError, match="the mask: its only value is 1"):
        aiene.predict(run.file, masks=ones, device="cpu")
    with_label = aiene.predict(run.file, masks=ones, fg_labels="1", device="cpu")
    assert [node.record for node in with_label.nodes] == [node.record for node in contoured.nodes]


def test_another_threshold_counts_as_a_run_with_it_does(
    run: Run, contoured: aiene.Result, tmp_path: Path
) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    write_nifti(run.labels, masks / "one.nii.gz")
    limit = (contoured.nodes[0].ene + contoured.nodes[1].ene) / 2  # type: ignore[operator]
    aiene.run_cohort(run.file, tmp_path / "out", device="cpu", jobs=1, masks=str(masks), ene_threshold=limit)
    (with_it,) = aiene.load_results(tmp_path / "out")
    strict = contoured.at_threshold(limit)
    the_same(strict, with_it)
    counting = sum(node.pos >= contoured.rule.pos_from for node in contoured.nodes)  # type: ignore[operator]
    assert strict.n_ai_ene < contoured.at_threshold(0.0).n_ai_ene == counting  # type: ignore[operator]
    the_same(strict.at_threshold(contoured.rule.ene_threshold), contoured)
    strongest = max(node.pos for node in contoured.nodes)  # type: ignore[type-var]
    few = contoured.at_threshold(0.0, pos_from=strongest)
    assert [node.pos for node in few.nodes if node.is_ene] == [strongest]
    the_same(few.at_threshold(0.5, pos_from=contoured.rule.pos_from), contoured.at_threshold(0.5))
    with pytest.raises(UsageError, match="a probability from 0 to 1"):
        contoured.at_threshold(1.5)


def test_what_cannot_be_read_is_said_in_a_sentence(run: Run, predicted: aiene.Result, tmp_path: Path) -> None:
    voxels = np.zeros((4, 5, 6), np.int16)
    grid = Grid((4, 5, 6), (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    for arguments, sentence in (
        ((voxels,), "an array alone has no position in space; give grid="),
        ((voxels, predicted.grid), r"an array of shape \(4, 5, 6\) \(z, y, x\) on a grid of size"),
        ((voxels, grid), "the image: every voxel has the value 0"),
        ((voxels.astype(complex), grid), "the image: its voxels are complex128 instead of plain numbers"),
        ((np.full((60, 60, 60), np.nan), replace(grid, size=(60, 60, 60))), "NaN or infinite"),
        ((run.file, grid), "a file has its own grid"),
        ((to_sitk(Volume(voxels, grid)), grid), "an image has its own grid"),
        ((sitk.Image(20, 20, sitk.sitkInt16),), "the image: its position cannot be used"),
        ((sitk.Image([20, 20, 20], sitk.sitkVectorFloat32),), "several values per voxel"),
        (({"a": 1},), "dict cannot be read"),
        ((tmp_path / "absent.nii.gz",), "absent.nii.gz: it does not exist"),
    ):
        with pytest.raises(AieneError, match=sentence):
            aiene.predict(*arguments, device="cpu")
    two = tmp_path / "two"
    two.mkdir()
    for name in "ab":
        (two / f"{name}.nii.gz").write_bytes(run.file.read_bytes())
    with pytest.raises(
        UsageError, match=r"two holds 2 CTs; name one of them, or run all with aiene.run_cohort"
    ):
        aiene.predict(two, device="cpu")
    with pytest.raises(UsageError, match="no results of a run"):
        aiene.load_results(two)


def test_a_failed_case_of_a_run_has_no_count_and_no_masks(run: Run, tmp_path: Path) -> None:
    cts = tmp_path / "cts"
    cts.mkdir()
    (cts / "broken.nii.gz").write_bytes(run.file.read_bytes()[:5000])
    aiene.run_cohort(cts, tmp_path / "out", device="cpu", jobs=1)
    (failed,) = aiene.load_results(tmp_path / "out")
    assert (failed.status, failed.n_ai_ene, failed.nodes) == ("failed", None, ())
    assert failed.reason
    with pytest.raises(AieneError, match="broken has no grid and no masks: it is failed"):
        failed.grid  # noqa: B018


def test_progress_is_told_by_stage_and_by_case_and_paths_may_be_text(run: Run) -> None:
    stages: list[tuple[int, int, str]] = []
    aiene.predict(
        str(run.file), device="cpu", masks=str(run.contours), progress=lambda *step: stages.append(step)
    )
    total = len(STAGES)
    assert [step[:2] for step in stages] == [(k, total) for k in range(1, total + 1)]
    assert sorted(words for *_, words in stages) == sorted(STAGES)
    cases: list[tuple[int, int, str]] = []
    aiene.run_cohort(
        str(run.file), str(run.out), device="cpu", jobs=1, progress=lambda *step: cases.append(step)
    )
    assert cases == [(1, 1, "one: ok")]


def test_a_finished_run_is_looked_through_without_loading_torch(run: Run) -> None:
    """Loading it alone takes seconds, and nothing is left to compute."""
    script = (
        "import sys, aiene\n"
        f"done = aiene.run_cohort({str(run.file)!r}, {str(run.out)!r}, device='cpu', jobs=1)\n"
        "assert [case.status for case in done.results] == ['ok']\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


def test_a_script_without_a_guarded_main_runs_several_cts(run: Run, tmp_path: Path) -> None:
    """Its two worker processes must not run the script again."""
    cts = tmp_path / "cts"
    cts.mkdir()
    for name in "ab":
        (cts / f"{name}.nii.gz").write_bytes(run.file.read_bytes())
    masks = tmp_path / "masks"
    masks.mkdir()
    for name in "ab":
        write_nifti(run.labels, masks / f"{name}.nii.gz")
    script = tmp_path / "script.py"
    script.write_text(
        "import aiene\n"
        "print('begun')\n"
        f"summary = aiene.run_cohort({str(cts)!r}, {str(tmp_path / 'out')!r}, device='cpu',"
        f" masks={str(masks)!r}, jobs=2)\n"
        "print([result.status for result in summary.results], __file__.endswith('script.py'))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=500, check=False)
    assert done.stdout.splitlines() == ["begun", "['ok', 'ok'] True"], done.stderr
