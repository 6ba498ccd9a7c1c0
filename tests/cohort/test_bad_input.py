"""Every bad input is one clear sentence, a row, and an exit code; nothing else suffers."""

from __future__ import annotations

import gzip
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
import typer
from pydicom.uid import MRImageStorage
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.cli.console import user_errors
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import default_folder
from aiene.phantom.phantom import Phantom, write_dicom_series
from aiene.results.nifti import nifti_bytes

Maker = Callable[[Path, Phantom], None]


def nifti(array: np.ndarray, spacing: tuple[float, ...] = (2.0, 2.0, 3.0)) -> nib.Nifti1Image:
    image = nib.Nifti1Image(array, np.diag([*(*spacing, 3.0)[:3], 1.0]))
    image.header.set_zooms(spacing)
    return image


def truncated_gzip(folder: Path, phantom: Phantom) -> None:
    (folder / "case.nii.gz").write_bytes(nifti_bytes(phantom.ct)[:20_000])


def text_file(folder: Path, _: Phantom) -> None:
    (folder / "case.nii.gz").write_text("Dear radiologist, please find the CT attached.")


def empty_file(folder: Path, _: Phantom) -> None:
    (folder / "case.nii").touch()


def flat_image(folder: Path, phantom: Phantom) -> None:
    nib.save(nifti(phantom.ct.array[30].T.copy(), (2.0, 2.0)), folder / "case.nii.gz")


def several_volumes(folder: Path, phantom: Phantom) -> None:
    array = np.stack([phantom.ct.array.T] * 2, axis=-1)
    nib.save(nifti(array, (2.0, 2.0, 3.0, 1.0)), folder / "case.nii")


def mask_as_ct(folder: Path, phantom: Phantom) -> None:
    (folder / "case.nii.gz").write_bytes(nifti_bytes(phantom.labels))


def not_numbers(value: float) -> Maker:
    def make(folder: Path, phantom: Phantom) -> None:
        array = phantom.ct.array.astype(np.float32)
        array[20:22, 30, 40] = value
        (folder / "case.nii.gz").write_bytes(nifti_bytes(phantom.ct.with_array(array)))

    return make


def spacing_of(mm: float) -> Maker:
    def make(folder: Path, phantom: Phantom) -> None:
        content = bytearray(gzip.decompress(nifti_bytes(phantom.ct)))
        content[80:84] = np.float32(mm).tobytes()  # pixdim[1]
        content[280:284] = np.float32(-mm).tobytes()  # srow_x[0]
        (folder / "case.nii").write_bytes(content)

    return make


def four_gigabyte_lie(folder: Path, phantom: Phantom) -> None:
    content = bytearray(gzip.decompress(nifti_bytes(phantom.ct)))
    content[42:48] = np.array([1024, 1024, 2048], np.int16).tobytes()  # dim[1:4]
    (folder / "case.nii.gz").write_bytes(gzip.compress(bytes(content)))


def stored_values(folder: Path, phantom: Phantom) -> None:
    shifted = (phantom.ct.array.astype(np.int32) + 1024).clip(0).astype(np.int16)
    (folder / "case.nii.gz").write_bytes(nifti_bytes(phantom.ct.with_array(shifted)))


def magnetic_resonance(folder: Path, phantom: Phantom) -> None:
    for file in write_dicom_series(phantom.ct, folder / "case", name="bad"):
        ds = pydicom.dcmread(file)
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
        ds.Modality = "MR"
        ds.save_as(file)


def one_slice(folder: Path, phantom: Phantom) -> None:
    for file in write_dicom_series(phantom.ct, folder / "case", name="bad")[1:]:
        file.unlink()


def missing_slice(folder: Path, phantom: Phantom) -> None:
    write_dicom_series(phantom.ct, folder / "case", name="bad")[30].unlink()


def no_neck(folder: Path, phantom: Phantom) -> None:
    """A water ball in air: a CT by its values, but of nothing that has a neck."""
    grid = Grid((40, 60, 60), (4.0, 4.0, 4.0), (0.0, 0.0, 0.0))
    z, y, x = np.indices(grid.size)
    ball = (z - 20) ** 2 + (y - 30) ** 2 + (x - 30) ** 2 < 8**2
    (folder / "case.nii.gz").write_bytes(nifti_bytes(Volume(np.where(ball, 0, -1000).astype(np.int16), grid)))


FAILING = {
    "a truncated gzip": (truncated_gzip, "case.nii.gz", "copy"),
    "a text file named .nii.gz": (text_file, "case.nii.gz", ""),
    "an empty file": (empty_file, "case.nii", ""),
    "a 2D image": (flat_image, "case.nii.gz", "two-dimensional|2D|2-D|volume"),
    "several volumes": (several_volumes, "case.nii", "2 volumes"),
    "a mask given as CT": (mask_as_ct, "case.nii.gz", "mask"),
    "NaN voxels": (not_numbers(np.nan), "case.nii.gz", "NaN|not a number|finite"),
    "infinite voxels": (not_numbers(np.inf), "case.nii.gz", "infinite|finite"),
    "spacing zero": (spacing_of(0.0), "case.nii", "spacing"),
    "spacing absurd": (spacing_of(300.0), "case.nii", "spacing"),
    "a 4 GB header lie": (four_gigabyte_lie, "case.nii.gz", ""),
    "stored values instead of HU": (stored_values, "case.nii.gz", "HU"),
    "MR instead of CT": (magnetic_resonance, "case", "MR"),
    "a 1-slice series": (one_slice, "case", "slice"),
    "a missing slice": (missing_slice, "case", "missing"),
    "no neck at all": (no_neck, "", "neck|body|registration"),
}


def run(*words: str | Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *map(str, words), "--device", "cpu", "--jobs", "1"])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stderr


@pytest.fixture(scope="module")
def phantom(phantoms: dict[str, Phantom]) -> Phantom:
    return phantoms["one"]


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAILING)
def test_a_bad_ct_is_one_sentence_with_file_and_remedy(fault: str, phantom: Phantom, tmp_path: Path) -> None:
    make, file, word = FAILING[fault]
    source = tmp_path / "in"
    source.mkdir()
    make(source, phantom)
    code, said = run(source, "-o", tmp_path / "out")
    assert code == 1
    cases = pd.read_csv(tmp_path / "out" / "cases.csv", keep_default_na=False)
    assert cases[["case_id", "status"]].to_numpy().tolist() == [["case", "failed"]]
    (reason,) = cases.reason
    assert reason in " ".join(said.split("\n"))
    assert file in reason
    assert pd.Series([reason]).str.contains(word, regex=True, case=False).all(), reason
    assert reason.endswith(".")
    assert ";" in reason  # problem; remedy
    assert "Traceback" not in said
    assert "internal error" not in said
    assert [f.name for f in (tmp_path / "out" / "cases" / "case").iterdir()] == ["case.json"]


@pytest.mark.slow
def test_one_good_ct_among_all_the_bad_ones_is_done(phantom: Phantom, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    for number, (make, _, _) in enumerate(FAILING.values()):
        folder = tmp_path / f"made{number}"
        folder.mkdir()
        make(folder, phantom)
        (made,) = folder.iterdir()
        made.rename(source / made.name.replace("case", f"bad{number:02d}", 1))
    (source / "Grüße aus Zürich  (1)").mkdir()
    write_dicom_series(phantom.ct, source / "Grüße aus Zürich  (1)", name="good")
    code, _ = run(source, "-o", tmp_path / "out of  the ordinary é")
    assert code == 1
    cases = pd.read_csv(tmp_path / "out of  the ordinary é" / "cases.csv").set_index("case_id")
    assert len(cases) == len(FAILING) + 1
    assert cases.status["Grüße aus Zürich  (1)"] in ("ok", "no_nodes")
    assert (cases.status.drop("Grüße aus Zürich  (1)") == "failed").all()


def test_an_empty_folder_is_wrong_use(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    code, said = run(tmp_path / "in", "-o", tmp_path / "out")
    assert code == 2
    assert said.startswith("aiene: in: ")
    assert len(said.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_loop_of_links_is_walked_once(phantom: Phantom, tmp_path: Path) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "loop").symlink_to(source)
    (source / "deep" / "dangling.nii.gz").symlink_to(tmp_path / "nowhere")
    text_file(source, phantom)
    code, said = run(source, "-o", tmp_path / "out")
    assert code == 1
    cases = pd.read_csv(tmp_path / "out" / "cases.csv")
    assert (cases.case_id == "case").sum() == 1
    assert "Traceback" not in said


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_files_without_permission_are_named(phantom: Phantom, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "case.nii.gz").write_bytes(nifti_bytes(phantom.ct))
    (source / "case.nii.gz").chmod(0)
    code, said = run(source, "-o", tmp_path / "out")
    assert code == 1
    assert "Permission denied" in said
    tmp_path.chmod(0o500)
    code, said = run(source, "-o", tmp_path / "new")
    tmp_path.chmod(0o700)
    assert code == 2
    assert "no permission to write here" in said


def test_an_output_that_cannot_be_a_folder_is_said(phantom: Phantom, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    text_file(source, phantom)
    (tmp_path / "out").write_text("a file is here")
    code, said = run(source, "-o", tmp_path / "out")
    assert code == 1
    assert "choose another folder with -o" in said
    assert (tmp_path / "out").read_text() == "a file is here"


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Any]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root can mount a small file system here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_is_said_and_leaves_nothing_half_written(cts: Path, masks: Path, tiny_disk: Path) -> None:
    with (tiny_disk / "ballast").open("wb") as file:
        file.write(bytes(40_000))
    words = ["--keep-prepared", "--masks", masks]
    code, said = run(cts, "-o", tiny_disk / "out", *words)  # type: ignore[arg-type]
    assert code == 1
    assert "the disk is full, and 2 of 2 cases are not done; free some space" in said
    assert "Traceback" not in said
    assert [f.name for f in (tiny_disk / "out" / "cases").iterdir()] == []
    assert not list(tiny_disk.rglob("*.partial"))


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(default_folder(), tmp_path / "bundle"))


@pytest.mark.slow
def test_a_bundle_with_a_changed_file_is_refused(bundle: Path, cts: Path, tmp_path: Path) -> None:
    weights = bundle / "classifier" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    code, said = run(cts, "-o", tmp_path / "out", "--model", bundle)
    assert code == 2
    assert said.strip() == (
        "aiene: weights.safetensors: its SHA-256 is not the one on the model card; download the bundle again."
    )


def test_a_bundle_with_a_stranger_or_a_gap_is_refused(bundle: Path, cts: Path, tmp_path: Path) -> None:
    (bundle / "extra.py").write_text("")
    code, said = run(cts, "-o", tmp_path / "out", "--model", bundle)
    assert (code, "extra.py: not on the model card" in said) == (2, True)
    (bundle / "extra.py").unlink()
    (bundle / "template.nrrd").unlink()
    code, said = run(cts, "-o", tmp_path / "out", "--model", bundle)
    assert (code, "template.nrrd: missing from the model bundle" in said) == (2, True)


def test_a_damaged_card_is_refused(bundle: Path, cts: Path, tmp_path: Path) -> None:
    (bundle / "model.json").write_text('{"format": 1, "name": "x"')
    code, said = run(cts, "-o", tmp_path / "out", "--model", bundle)
    assert (code, "model.json: not a model card" in said) == (2, True)


@pytest.mark.slow
def test_ctrl_c_ends_with_a_sentence(cts: Path, tmp_path: Path) -> None:
    line = [sys.executable, "-m", "aiene", "run", str(cts), "-o", str(tmp_path / "out"), "--jobs", "1"]
    with subprocess.Popen(line, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (tmp_path / "out" / "run.json").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode in (130, -signal.SIGINT)  # the same to a shell; Python chooses by where it was
    assert "stopped; the same command continues from here" in said
    assert "Traceback" not in said


def test_ctrl_c_that_a_library_turned_into_another_error_still_ends_with_the_sentence(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def interrupted_import() -> None:
        with user_errors():
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ImportError("half a library") from None

    with pytest.raises(typer.Exit) as ended:
        interrupted_import()
    assert ended.value.exit_code == 130
    assert "stopped; the same command continues from here" in capsys.readouterr().err
