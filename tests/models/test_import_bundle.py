"""`aiene models import`: from assets to a bundle that runs, or to nothing at all."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.models.bundle import default_folder
from builders import keras_writer


def models(*words: str | Path) -> Any:
    return CliRunner().invoke(app, ["models", *map(str, words)])


@pytest.fixture
def assets(tmp_path: Path) -> dict[str, Path]:
    """A segmenter in nnU-Net v2's layout, a narrow Keras file, a template."""
    keras_writer.write(tmp_path / "dualnet.h5")
    return {
        "--segmenter": default_folder() / "segmenter",
        "--classifier": tmp_path / "dualnet.h5",
        "--template": default_folder() / "template.nrrd",
    }


def words_of(assets: dict[str, Path]) -> list[str | Path]:
    return [word for pair in assets.items() for word in pair]


@pytest.mark.slow
def test_assets_become_a_bundle_that_is_found_by_name_and_verifies(
    assets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "my models"))
    made = models("import", "--name", "mine", *words_of(assets), "--profile", "open", "--rescue", "--json")
    assert made.exit_code == 0, made.output
    assert Path(json.loads(made.stdout)["path"]) == tmp_path / "my models" / "mine"
    shown = json.loads(models("show", "mine", "--json").stdout)
    assert (shown["profile"], shown["rescue_registration"], shown["ene_threshold"]) == ("open", True, 0.3)
    assert models("verify", "mine").exit_code == 0
    names = [model["name"] for model in json.loads(models("list", "--json").stdout)["models"]]
    assert names == ["default", "mine"]


@pytest.mark.slow
def test_a_segmenter_from_elsewhere_does_not_inherit_the_bases_organs(tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(default_folder(), base)
    card = json.loads((base / "model.json").read_text())
    card["segmenter"]["auxiliary"] = {"larynx": 7}
    (base / "model.json").write_text(json.dumps(card))
    words = ("--segmenter", default_folder() / "segmenter", "--base", base, "-o", tmp_path / "mine")
    made = models("import", "--name", "mine", *words, "--json")
    assert made.exit_code == 0, made.output
    assert json.loads((tmp_path / "mine" / "model.json").read_text())["segmenter"]["auxiliary"] == {}


def test_a_bundle_is_not_written_over_another(assets: Any, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "thesis.txt").write_text("precious")
    made = models("import", "--name", "mine", *words_of(assets), "--profile", "open", "-o", tmp_path / "here")
    assert made.exit_code == 2
    assert "here: something exists here already" in made.stderr
    assert (tmp_path / "here" / "thesis.txt").read_text() == "precious"


def _file(place: Path) -> None:
    place.write_text("precious")


def _link(place: Path) -> None:
    place.with_name("elsewhere").mkdir()
    place.symlink_to("elsewhere", target_is_directory=True)


def _dangling(place: Path) -> None:
    place.symlink_to("nowhere")


@pytest.mark.parametrize("lay", [_file, _link, _dangling])
def test_a_file_or_link_at_the_place_of_a_bundle_stays(lay: Any, assets: Any, tmp_path: Path) -> None:
    lay(tmp_path / "here")
    made = models("import", "--name", "mine", *words_of(assets), "--profile", "open", "-o", tmp_path / "here")
    assert made.exit_code == 2, made.output
    assert "here: something exists here already" in made.stderr
    assert (tmp_path / "here").is_symlink() or (tmp_path / "here").read_text() == "precious"


@pytest.mark.slow
def test_nothing_beside_a_new_bundle_is_touched(assets: Any, tmp_path: Path) -> None:
    mine = tmp_path / "out" / ".mine.partial" / "thesis.txt"
    mine.parent.mkdir(parents=True)
    mine.write_text("precious")
    words = ("import", "--name", "mine", "--profile", "open", "-o", tmp_path / "out" / "mine")
    made = models(*words, *words_of(assets))
    assert made.exit_code == 0, made.output
    assert mine.read_text() == "precious"
    assert sorted(f.name for f in mine.parents[1].iterdir()) == [".mine.partial", "mine"]


@pytest.mark.slow
def test_what_is_laid_into_the_place_while_an_import_runs_stays(
    assets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from aiene.models.importers import bundle

    def card_and_more(path: Path, card: dict[str, object]) -> None:
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("precious")

    monkeypatch.setattr(bundle, "write_card", card_and_more)
    made = models("import", "--name", "mine", *words_of(assets), "--profile", "open", "-o", tmp_path / "mine")
    assert made.exit_code == 1, made.output
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "precious"
    assert not list(tmp_path.glob(".aiene*"))


@pytest.mark.parametrize("within", [".", "segmenter", "classifier/deep"])
def test_a_bundle_does_not_go_into_its_own_base(within: Any, tmp_path: Path) -> None:
    base = tmp_path / "base"
    shutil.copytree(default_folder(), base)
    before = sorted(base.rglob("*"))
    words = ("--segmenter", default_folder() / "segmenter", "--base", base, "-o", base / within / "new")
    made = models("import", "--name", "new", *words)
    assert made.exit_code == 2, made.output
    assert "lies in --base (base)" in made.stderr
    assert sorted(base.rglob("*")) == before


def test_a_card_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "odd"
    shutil.copytree(default_folder(), folder)
    card = json.loads((folder / "model.json").read_text())
    odd = "mine\x1b]0;owned\x07 \u202eevil"
    (folder / "model.json").write_text(json.dumps({**card, "licence": odd, "notice": odd}))
    for words in (("show", folder), ("show", folder, "--json")):
        shown = models(*words)
        assert shown.exit_code == 0, shown.output
        assert not {"\x1b", "\x07", "\u202e"} & set(shown.stdout)
        assert "u202e" in shown.stdout
    assert json.loads(models("show", folder, "--json").stdout)["licence"] == odd


def _not_hdf5(assets: dict[str, Path], folder: Path) -> None:
    assets["--classifier"].write_bytes(b"\x89HDF" + bytes(100))


def _missing_layer(assets: dict[str, Path], folder: Path) -> None:
    def drop(builder: keras_writer.Builder) -> None:
        builder.layers.pop(builder.layer("Dense"))

    keras_writer.write(assets["--classifier"], drop)


def _no_segmenter(assets: dict[str, Path], folder: Path) -> None:
    assets["--segmenter"] = folder / "nothing"


def _no_template(assets: dict[str, Path], folder: Path) -> None:
    (folder / "template.nrrd").write_text("no template")
    assets["--template"] = folder / "template.nrrd"


class _Marker:
    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def _hostile_pickle(assets: dict[str, Path], folder: Path) -> None:
    task = folder / "Task501_ENE"
    (task / "fold_0").mkdir(parents=True)
    for name in (
        "plans.pkl",
        "fold_0/model_final_checkpoint.model.pkl",
        "fold_0/model_final_checkpoint.model",
    ):
        (task / name).write_bytes(pickle.dumps(_Marker(folder / "code ran")))
    assets["--segmenter"] = task


@pytest.mark.parametrize(
    ("fault", "file"),
    [
        (_not_hdf5, "dualnet.h5"),
        (_missing_layer, "dualnet.h5"),
        (_no_segmenter, "nothing"),
        (_no_template, "template.nrrd"),
        (_hostile_pickle, ".pkl"),
    ],
)
@pytest.mark.slow
def test_a_bad_asset_is_one_sentence_and_leaves_nothing(
    fault: Any, file: Any, assets: Any, tmp_path: Path
) -> None:
    fault(assets, tmp_path)
    made = models("import", "--name", "m", *words_of(assets), "--profile", "open", "-o", tmp_path / "bundle")
    assert made.exit_code == 2
    assert isinstance(made.exception, SystemExit)
    assert len(made.stderr.strip().splitlines()) == 1
    assert file in made.stderr
    assert not (tmp_path / "bundle").exists()
    assert not list(tmp_path.glob("*.partial"))
    assert not (tmp_path / "code ran").exists()


@pytest.mark.parametrize("name", ["../up", "a b", "", ".hidden"])
def test_a_name_that_is_no_name_is_refused(
    name: Any, assets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIENE_MODELS", str(tmp_path / "models"))
    made = models("import", "--name", name, *words_of(assets), "--profile", "open")
    assert made.exit_code == 2
    assert "not a name for a bundle" in made.stderr
    assert not (tmp_path / "models").exists() or not list((tmp_path / "models").iterdir())


@pytest.mark.slow
def test_the_published_assets_become_a_bundle(golden: Path, tmp_path: Path) -> None:
    made = models(
        "import",
        "--name",
        "published",
        "--segmenter",
        golden / "networks" / "nnunet" / "nnUNet" / "Task501_ENE",
        "--classifier",
        golden / "networks" / "dualnet" / "variant_small_trained_keras24.h5",
        "--template",
        golden / "template" / "template_image.nrrd",
        "-o",
        tmp_path / "bundle",
    )
    assert made.exit_code == 0, made.output
    shown = json.loads(models("show", tmp_path / "bundle", "--json").stdout)
    assert (shown["profile"], shown["rescue_registration"]) == ("published", False)
    assert models("verify", tmp_path / "bundle").exit_code == 0


def test_the_published_profile_refuses_a_template_on_which_its_crop_is_empty(
    assets: Any, golden: Any, tmp_path: Path
) -> None:
    made = models("import", "--name", "m", *words_of(assets), "--profile", "published", "-o", tmp_path / "b")
    assert made.exit_code == 2
    assert "template.nrrd" in made.stderr


@pytest.mark.slow
def test_a_zip_of_the_segmenter_is_taken(assets: Any, tmp_path: Path) -> None:
    shutil.make_archive(str(tmp_path / "segmenter"), "zip", assets["--segmenter"])
    assets["--segmenter"] = tmp_path / "segmenter.zip"
    made = models("import", "--name", "m", *words_of(assets), "--profile", "open", "-o", tmp_path / "bundle")
    assert made.exit_code == 0, made.output
