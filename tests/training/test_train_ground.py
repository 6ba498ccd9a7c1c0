"""What can be told before a training begins: places that are not ours, other preparations, leaks, options."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.errors import InputError, ModelError, ProblemsError, UsageError
from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import default_folder, read_bundle, verify_bundle, write_card
from aiene.nodes.node import CountingRule
from aiene.results.nifti import write_nifti
from aiene.training.bundle import (
    Ground,
    Trained,
    assemble,
    begin_with,
    check_fits,
    check_record,
    ground_of,
    preparation_of,
)
from aiene.training.nodes import read_nodes
from aiene.training.patients import leaks, read_patients, same_cts, slices_of
from aiene.training.place import MARKER, NOTICE, check_not_trained, claim, put_bundle, work_folder

GRID = Grid((12, 20, 24), (3.0, 2.0, 2.0), (-10.0, 5.0, 30.0))


def bundle(folder: Path, **changes: Any) -> Path:
    """A copy of the default bundle with another card."""
    shutil.copytree(default_folder(), folder)
    card = json.loads((folder / "model.json").read_text())
    card.pop("files")
    write_card(folder, {**card, "name": folder.name, **changes})
    return folder


def trained_bundle(out: Path, start: Path, which: str = "segmenter", **facts: Any) -> Ground:
    """A bundle as a training writes it, with the network of the default bundle."""
    ground = ground_of(out, str(start), {})
    claim(ground.work)
    network = getattr(ground.base, f"{which}_folder")
    assemble(ground, Trained(which, network, {"training": "first", **facts}))  # type: ignore[arg-type]
    return ground


@pytest.fixture
def data(tmp_path: Path) -> tuple[Path, Path]:
    """Six noisy CTs with their labels."""
    images, labels = tmp_path / "ct", tmp_path / "labels"
    images.mkdir()
    labels.mkdir()
    for k in range(6):
        write_nifti(Volume(noise(k), GRID), images / f"p{k}.nii.gz")
        mask = np.zeros(GRID.size, np.uint8)
        mask[5, 6, 7] = 2
        write_nifti(Volume(mask, GRID), labels / f"p{k}.nii.gz")
    return images, labels


def noise(seed: int, size: tuple[int, int, int] = GRID.size) -> np.ndarray[Any, np.dtype[np.int16]]:
    hu = np.random.default_rng(seed).normal(40, 30, size).round().astype(np.int16)
    hu[:, :3] = hu[:, -3:] = -1000
    return hu


def command(data: tuple[Path, Path], out: Path, *more: str) -> Any:
    line = [
        "train",
        "segmenter",
        "--images",
        str(data[0]),
        "--labels",
        str(data[1]),
        "-o",
        str(out),
        "-d",
        "cpu",
    ]
    return CliRunner().invoke(app, [*line, *more])


def content(folder: Path) -> dict[str, bytes]:
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


# ---- nothing that is not ours is replaced


@pytest.mark.parametrize("card", [None, "{}", '{"format": "layers-model", "modelTopology": {}}'])
def test_a_folder_that_is_no_bundle_is_left_as_it_is(
    data: tuple[Path, Path], tmp_path: Path, card: str | None
) -> None:
    out = tmp_path / "thesis"
    out.mkdir()
    (out / "chapter.tex").write_text("years of work")
    if card is not None:
        (out / "model.json").write_text(card)
    before = content(out)
    done = command(data, out)
    assert done.exit_code == 2, done.output
    assert "thesis exists" in done.output
    assert content(out) == before
    assert not work_folder(out).exists()


def test_a_bundle_that_no_training_made_is_not_replaced(tmp_path: Path) -> None:
    out = bundle(tmp_path / "imported")
    with pytest.raises(UsageError, match="aiene train did not make"):
        ground_of(out, None, {})


def test_a_bundle_with_a_file_of_the_users_is_not_replaced(tmp_path: Path) -> None:
    trained_bundle(tmp_path / "mine", default_folder())
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(ModelError, match=r"notes.txt: not on the model card"):
        ground_of(tmp_path / "mine", None, {})


def test_a_work_folder_of_another_is_left_alone(data: tuple[Path, Path], tmp_path: Path) -> None:
    work = tmp_path / "mine.training"
    work.mkdir()
    (work / "plan.txt").write_text("marathon")
    done = command(data, tmp_path / "mine")
    assert done.exit_code == 2
    assert "mine.training holds files, but was not made by aiene train" in done.output
    assert content(work) == {"plan.txt": b"marathon"}


def test_a_dataset_of_another_is_left_alone_by_the_export(data: tuple[Path, Path], tmp_path: Path) -> None:
    theirs = tmp_path / "raw" / "Dataset501_ENE" / "imagesTr"
    theirs.mkdir(parents=True)
    (theirs / "liver_0000.nii.gz").write_bytes(b"their image")
    done = command(data, tmp_path / "raw", "--export-dataset")
    assert done.exit_code == 2
    assert "Dataset501_ENE holds files, but was not made by aiene train" in done.output
    assert content(theirs) == {"liver_0000.nii.gz": b"their image"}


@pytest.mark.parametrize("place", ["ct", "labels", "ct/model", ".", "link", "ct/../labels"])
def test_what_is_written_never_overlaps_what_is_read(
    data: tuple[Path, Path], tmp_path: Path, place: str
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "ct")
    before = content(tmp_path)
    for more in ((), ("--export-dataset",)):
        done = command(data, tmp_path / place, *more)
        assert done.exit_code == 2, (place, more, done.output)
        assert "Traceback" not in done.output
    assert content(tmp_path) == before


def test_the_bundle_to_start_from_is_not_replaced(tmp_path: Path) -> None:
    trained_bundle(tmp_path / "mine", default_folder())
    with pytest.raises(UsageError, match=r"is --from \(mine\)"):
        ground_of(tmp_path / "mine", str(tmp_path / "mine"), {})


def test_images_within_the_work_folder_are_refused(data: tuple[Path, Path], tmp_path: Path) -> None:
    kept = tmp_path / "mine.training" / "ct"
    shutil.copytree(data[0], kept)
    with pytest.raises(UsageError, match=r"\(mine.training\) holds --images \(ct\)"):
        ground_of(tmp_path / "mine", None, {"--images": kept})


@pytest.mark.parametrize("name", ["my model", "Größe", "-x", ".hidden", "a/.."])
@pytest.mark.slow
def test_a_name_that_no_bundle_can_have_is_told_before_any_work(
    data: tuple[Path, Path], tmp_path: Path, name: str
) -> None:
    done = command(data, tmp_path / name)
    assert done.exit_code == 2
    assert "Traceback" not in done.output
    assert not list(tmp_path.glob("*.training"))


def test_a_network_that_was_trained_is_not_replaced_by_another_training(tmp_path: Path) -> None:
    trained_bundle(tmp_path / "mine", default_folder())
    there = read_bundle(tmp_path / "mine")
    check_not_trained(there, "segmenter", "first")
    check_not_trained(there, "classifier", "any")
    with pytest.raises(UsageError, match="mine holds a segmenter of another training already"):
        check_not_trained(there, "segmenter", "second")
    trained_bundle(tmp_path / "next", tmp_path / "mine", "classifier")
    check_not_trained(
        read_bundle(tmp_path / "next"), "segmenter", "any"
    )  # came with --from, which has it still


def test_a_bundle_that_cannot_be_put_leaves_the_old_one_where_it_was(tmp_path: Path) -> None:
    trained_bundle(tmp_path / "mine", default_folder())
    before = content(tmp_path / "mine")
    with pytest.raises(Exception, match="mine"):
        put_bundle(tmp_path / "nowhere", tmp_path / "mine")
    assert content(tmp_path / "mine") == before


def test_a_bundle_is_back_after_a_kill_between_its_going_and_the_new_ones_coming(tmp_path: Path) -> None:
    ground = trained_bundle(tmp_path / "mine", default_folder())
    before = content(ground.out)
    ground.out.rename(ground.work / "bundle.replaced")
    assert ground_of(tmp_path / "mine", None, {}).there is not None
    assert content(ground.out) == before


def test_what_the_owner_wrote_on_the_card_stays(tmp_path: Path) -> None:
    ground = trained_bundle(tmp_path / "mine", default_folder())
    card = json.loads((ground.out / "model.json").read_text())
    (ground.out / "model.json").write_text(json.dumps({**card, "licence": "CC BY 4.0", "version": "7"}))
    ground = ground_of(ground.out, None, {})
    assemble(ground, Trained("classifier", ground.base.classifier_folder, {"training": "c"}))
    after = read_bundle(ground.out)
    verify_bundle(after)
    assert (after.card.licence, after.card.version, after.card.notice) == ("CC BY 4.0", "7", NOTICE)
    assert after.card.provenance["segmenter"] == {"training": "first"}


def test_a_new_classifier_does_not_keep_the_least_pos_of_another(tmp_path: Path) -> None:
    start = bundle(tmp_path / "strict", pos_from=0.6)
    ground = trained_bundle(tmp_path / "mine", start)
    assert read_bundle(ground.out).card.rule.pos_from == 0.6  # the classifier is still the old one
    ground = ground_of(ground.out, None, {})
    made = Trained("classifier", ground.base.classifier_folder, {"training": "c"}, ene_threshold=0.4)
    assemble(ground, made)
    assert read_bundle(ground.out).card.rule == CountingRule(0.4, 0.0)


# ---- one bundle, one preparation


def test_without_from_the_second_training_takes_what_lies_there(tmp_path: Path) -> None:
    start = bundle(tmp_path / "pub", profile="published", rescue_registration=False)
    trained_bundle(tmp_path / "mine", start)
    ground = ground_of(tmp_path / "mine", None, {})
    assert ground.base.path == tmp_path / "mine"
    assert preparation_of(ground.base) == preparation_of(read_bundle(start))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"profile": "published"}, "profile published, not open"),
        ({"classifier": {"normalisation": "zscore"}}, "normalisation zscore, not legacy"),
        ({"rescue_registration": False}, "rescue of the registration off, not on"),
        ({"neck_centre_lps_mm": [0, 0, 9]}, "neck centre (0.0, 0.0, 9.0), not"),
    ],
)
def test_another_preparation_is_refused_and_the_bundle_that_fits_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], said: str
) -> None:
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "models"))
    start = bundle(tmp_path / "models" / "fitting", **change)
    trained_bundle(tmp_path / "mine", start)
    with pytest.raises(UsageError) as caught:
        ground_of(tmp_path / "mine", "default", {})
    assert said in str(caught.value)
    assert "--from fitting would fit" in str(caught.value)
    assert ground_of(tmp_path / "mine", "fitting", {}).base.card.name == "fitting"


def test_another_template_is_another_preparation(tmp_path: Path) -> None:
    other = bundle(tmp_path / "other")
    with (other / "template.nrrd").open("ab") as stream:
        stream.write(b"\0")
    card = json.loads((other / "model.json").read_text())
    card.pop("files")
    write_card(other, card)
    with pytest.raises(UsageError, match=r"template [0-9a-f]{12}, not [0-9a-f]{12}"):
        check_fits(read_bundle(default_folder()), tmp_path / "mine", preparation_of(read_bundle(other)))


def test_a_training_that_was_begun_otherwise_counts_too(tmp_path: Path) -> None:
    start = bundle(tmp_path / "pub", profile="published")
    work = tmp_path / "mine.training"
    claim(work)
    record = {"preparation": preparation_of(read_bundle(start))}
    (work / "segmenter.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="profile published, not open"):
        ground_of(tmp_path / "mine", None, {})
    assert ground_of(tmp_path / "mine", str(start), {}).there is None


def test_the_card_takes_the_labels_and_the_normalisation_of_what_was_trained(tmp_path: Path) -> None:
    start = bundle(tmp_path / "zs", labels={"GTVn": 1, "GTVp": 2}, classifier={"normalisation": "zscore"})
    trained_bundle(tmp_path / "mine", start)
    card = read_bundle(tmp_path / "mine").card
    assert card.labels == {"GTVp": 1, "GTVn": 2}
    assert card.classifier.normalisation == "zscore"


def test_a_base_is_found_by_name_folder_or_place(tmp_path: Path) -> None:
    there = read_bundle(bundle(tmp_path / "there"))
    assert begin_with(None, None).card.name == "default"
    assert begin_with(None, there) is there
    assert begin_with("default", there).card.name == "default"


def test_the_record_of_an_earlier_call_is_compared_and_one_that_was_cut_off_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="leave --continue out"):
        check_record(tmp_path, "segmenter", {"seed": 1}, go_on=True)
    claim(tmp_path / "work")
    check_record(tmp_path / "work", "segmenter", {"seed": 1}, go_on=True)
    (tmp_path / "work" / "segmenter.json").write_text('{"seed": 1')
    check_record(tmp_path / "work", "segmenter", {"seed": 1}, go_on=True)
    (tmp_path / "work" / "segmenter.json").write_text('{"seed": 2}')
    with pytest.raises(UsageError, match=r"\(different: seed\)"):
        check_record(tmp_path / "work", "segmenter", {"seed": 1}, go_on=True)


@pytest.mark.slow
def test_options_that_cannot_be_are_told_before_a_ct_is_read(
    data: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unread(*_: object) -> None:
        raise AssertionError("a CT was read")

    monkeypatch.setattr("aiene.training.dataset.read_case", unread)
    patients = tmp_path / "patients.csv"
    patients.write_text("case_id,patient_id,fold\n" + "".join(f"p{k},q{k},{k % 2}\n" for k in range(6)))
    for more, said in (
        (("--fold", "9"), "--fold 9: there are 5 folds; name one from 0 to 4"),
        (("--fold", "2", "--patients", str(patients)), "--fold 2: there are 2 folds"),
        (("--from", "nobody"), "no model bundle of this name"),
        (("--continue",), "leave --continue out"),
        (("-d", "cuda:77"), "not on this machine"),
    ):
        done = command(data, tmp_path / "mine", *more)
        assert done.exit_code == 2
        assert said in done.output
        assert not (tmp_path / "mine.training").exists()


# ---- leaks


def test_the_same_ct_under_two_ids_is_found_in_any_format_order_and_padding() -> None:
    hu = noise(1)
    plain = slices_of(Volume(hu, GRID))
    turned = np.ascontiguousarray(hu[::-1, :, ::-1].transpose(2, 0, 1))
    affine = GRID.affine.copy()
    affine[:3, 3] = GRID.points([[11, 0, 23]])[0]
    affine[:3, :3] = affine[:3, :3] @ np.diag([-1, 1, -1])
    affine[:3, :3] = affine[:3, [2, 0, 1]]
    copies = {
        "float": Volume(hu.astype(np.float32) + 1e-3, GRID),
        "stored otherwise": Volume(turned, Grid.from_affine(affine, turned.shape)),
        "more air": Volume(np.pad(hu, 4, constant_values=-1024), Grid((20, 28, 32), GRID.spacing, (0, 0, 0))),
        "NaN for air": Volume(np.where(hu < -900, np.nan, hu).astype(np.float32), GRID),
        "cut": Volume(hu[4:9], Grid((5, 20, 24), GRID.spacing, GRID.origin)),
    }
    for name, copy in copies.items():
        assert same_cts({"a": plain, "b": slices_of(copy)}) == [("a", "b")], name
    assert same_cts({"a": plain, "b": slices_of(Volume(noise(2), GRID))}) == []
    assert same_cts({"a": slices_of(Volume(np.full(GRID.size, -1000, np.int16), GRID)), "b": plain}) == []


@pytest.mark.slow
@given(st.lists(st.integers(0, 5), min_size=2, max_size=8))
@settings(deadline=None, max_examples=20)
def test_every_two_cases_of_one_ct_are_told_unless_they_are_one_patient(seeds: list[int]) -> None:
    slices = {f"c{k}": slices_of(Volume(noise(seed), GRID)) for k, seed in enumerate(seeds)}
    expected = sum(a == b for k, a in enumerate(seeds) for b in seeds[k + 1 :])
    assert len(leaks(slices, {case: case for case in slices})) == expected
    assert leaks(slices, dict.fromkeys(slices, "one")) == []


@pytest.mark.slow
def test_a_copied_ct_is_refused_by_the_command_and_taken_as_one_patient(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    import nibabel as nib

    image = nib.load(data[0] / "p1.nii.gz")
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj).astype(np.float32), image.affine), data[0] / "q.nii")
    shutil.copyfile(data[1] / "p1.nii.gz", data[1] / "q.nii.gz")
    done = command(data, tmp_path / "mine")
    assert done.exit_code == 2
    assert "p1, q: they show the same CT" in done.output
    patients = tmp_path / "patients.csv"
    patients.write_text("case_id,patient_id\n" + "".join(f"p{k},q{k}\n" for k in range(6)) + "q,q1\n")
    done = command(data, tmp_path / "mine", "--patients", str(patients), "--export-dataset")
    assert "the same CT" not in done.output


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("P1,a\n", "line 2: there is no CT of the case P1; did you mean p1?"),
        ("zebra,a\n", "line 2: there is no CT of the case zebra; add the CT"),
        ("p1,a\np1,b\n", "line 3: the case p1 is already in line 2"),
        ("p1,a\np1_0000,a\n", "line 3: the case p1 is already in line 2"),
        ("p1,Ann\np2,ann\n", "the patients Ann and ann differ only in upper and lower case"),
        ("p1,a,b\n", "line 2: it has 3 cells, the header has 2"),
        ("p1\n", "line 2: it has 1 cells"),
        ('p1,"a\n', "is not CSV"),
        ("", "it has no rows"),
    ],
)
def test_a_row_that_would_split_a_patient_is_told(
    data: tuple[Path, Path], tmp_path: Path, rows: str, said: str
) -> None:
    file = tmp_path / "patients.csv"
    file.write_text("case_id,patient_id\n" + rows)
    done = command(data, tmp_path / "mine", "--patients", str(file))
    assert done.exit_code == 2, done.output
    assert said in done.output
    assert not (tmp_path / "mine.training").exists()


@pytest.mark.parametrize("delimiter", [",", ";"])
def test_blanks_byte_order_mark_and_channel_endings_are_no_part_of_an_id(
    tmp_path: Path, delimiter: str
) -> None:
    file = tmp_path / "patients.csv"
    rows = ["case_id , patient_id", "p1_0000 ,one ", " p2,one", "u\u0308,two", ""]
    file.write_text("\n".join(rows).replace(",", delimiter), encoding="utf-8-sig")
    table = read_patients(file)
    assert table.patient_of == {"p1": "one", "p2": "one", "\u00fc": "two"}
    assert "blanks around the values of 2 lines, 2 first" in table.notes[0]
    assert table.check_cases(["p1", "p2", "\u00fc", "p4"]) == (
        "patients.csv: 1 cases are not in it, p4 first; each is a patient of its own.",
    )


def test_a_table_in_another_encoding_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "patients.csv").write_bytes("case_id,patient_id\np\xfc,a\n".encode("latin-1"))
    with pytest.raises(InputError, match="not text in UTF-8"):
        read_patients(tmp_path / "patients.csv")
    with pytest.raises(InputError, match=r"nodes.csv: it cannot be read"):
        read_nodes(tmp_path / "nodes.csv")


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        (
            "a,1,5,2,3,1,1\nb,1,2,3,1,0\n",
            "line 2: it has 7 cells, the header has 6; write decimals with a point",
        ),
        ('a,"1,5",2,3,1,1\n', "not three numbers in mm; write decimals with a point"),
        ("a,1,2,3,1,1\na,1.0,2,3,1,0\n", "line 3: the node is already in line 2"),
        (",1,2,3,1,1\n", "case_id is empty"),
        ("a,nan,2,3,1,1\n", "not finite"),
    ],
)
def test_a_shifted_or_doubled_row_of_nodes_is_told(tmp_path: Path, rows: str, said: str) -> None:
    (tmp_path / "nodes.csv").write_text("case_id,x_mm,y_mm,z_mm,pos,ene\n" + rows)
    with pytest.raises(ProblemsError, match=said):
        read_nodes(tmp_path / "nodes.csv")


def test_two_cts_of_one_id_and_names_that_nnunet_takes_for_its_own_are_told(
    data: tuple[Path, Path], tmp_path: Path
) -> None:
    shutil.copyfile(data[0] / "p2.nii.gz", data[0] / "p1_0000.nii.gz")
    done = command(data, tmp_path / "mine")
    assert done.exit_code == 2
    assert (
        done.output.count("p1~") >= 2
    )  # both are told apart by a hash, and neither has a label map of its own
    assert "has no label map" in done.output
    (data[0] / "p1_0000.nii.gz").unlink()
    for folder in data:
        (folder / "p3.nii.gz").rename(folder / "p3_seg.nii.gz")
    done = command(data, tmp_path / "mine")
    assert "p3_seg: nnU-Net treats a name that ends in _seg as a file of its own" in done.output
    assert not (tmp_path / "mine.training" / MARKER).exists()
