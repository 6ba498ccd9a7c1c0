"""Keys, pseudonyms, and texts without names."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import re
from pathlib import Path

import pytest
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID
from typer.testing import CliRunner

from aiene import deidentify
from aiene.cli.app import app
from aiene.cli.folders import pseudonyms
from aiene.deidentify import Disguised, Key, all_pseudonyms, read_key
from aiene.errors import (
    AieneError,
    InputError,
    OutputError,
    UsageError,
    case_name,
    file_name,
    joined,
    said,
    uid_name,
)
from aiene.ingest.case import Case, Refusal, SeriesAside
from aiene.ingest.masks import find_mask
from aiene.ingest.readers.nrrd import read_nrrd
from aiene.results.records import CaseResult

KEY = Key(bytes(range(32)))
OTHER = Key(bytes(range(1, 33)))

alone = typer.Typer()
alone.command()(pseudonyms)


def key_file(folder: Path, content: bytes = bytes(range(32))) -> Path:
    file = folder / "the.key"
    file.write_bytes(content)
    file.chmod(0o600)
    return file


@given(st.text(max_size=60))
def test_a_pseudonym_is_short_and_the_same_each_time(case_id: str) -> None:
    name = KEY.pseudonym(case_id)
    assert re.fullmatch(r"P-[0-9a-hjkmnp-tv-z]{10}", name)
    assert name == Key(bytes(range(32))).pseudonym(case_id)
    assert name != OTHER.pseudonym(case_id)


def test_a_pseudonym_is_the_first_fifty_bits_of_an_hmac() -> None:
    digest = hmac.new(KEY.secret, b"case\0patient-7", hashlib.sha256).digest()
    bits = int.from_bytes(digest[:8], "big")
    letters = "0123456789abcdefghjkmnpqrstvwxyz"
    assert KEY.pseudonym("patient-7") == "P-" + "".join(letters[(bits >> 5 * k) & 31] for k in range(10))


@given(st.text("0123456789.", min_size=1, max_size=64))
def test_a_hashed_uid_is_a_valid_uid_and_none_of_ours(uid: str) -> None:
    hashed = KEY.uid(uid)
    assert UID(hashed).is_valid
    assert hashed.startswith("2.25.")
    assert hashed != OTHER.uid(uid)


def test_ids_paths_and_uids_of_the_same_letters_share_no_hash() -> None:
    text = "1.2.3"
    assert len({KEY.pseudonym(text)[2:], KEY.label("F", text)[2:], KEY.label("input", text)[6:]}) == 3


def test_a_key_hides_in_its_representation() -> None:
    assert "secret" not in repr(KEY)
    assert str(KEY.secret) not in repr(KEY)


def test_line_ends_that_an_editor_adds_do_not_change_a_key(tmp_path: Path) -> None:
    made = [
        read_key(key_file(tmp_path, b"correct horse battery staple" + end))[0]
        for end in (b"", b"\n", b"\r\n")
    ]
    assert len({key.pseudonym("x") for key in made}) == 1


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "at least 16 bytes, this has 0"),
        (b"0123456789abcde", "at least 16 bytes, this has 15"),
        (b"0123456789abcde\n\n\n", "this has 15"),
        (bytes(64), "8 different bytes, this has 1"),
        (b"abababababababababab", "this has 2"),
        (bytes(range(256)) * 5000, "too large to be a key"),
    ],
)
def test_what_is_no_key_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read_key(key_file(tmp_path, content))


def test_a_missing_key_a_folder_and_a_device_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such key file; name one, or make it with `head"):
        read_key(tmp_path / "none.key")
    with pytest.raises(InputError, match="a folder"):
        read_key(tmp_path)
    with pytest.raises(InputError, match="not a file that stays the same"):
        read_key(Path("/dev/urandom"))


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root reads every file")
def test_a_key_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path)
    file.chmod(0)
    with pytest.raises(InputError, match="cannot be read"):
        read_key(file)


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o400, False), (0o640, True), (0o644, True)])
def test_a_key_that_others_can_read_is_warned_of(tmp_path: Path, mode: int, warned: bool) -> None:
    file = key_file(tmp_path)
    file.chmod(mode)
    _, warnings = read_key(file)
    assert bool(warnings) == warned
    file.chmod(0o600)


def test_two_ids_of_one_pseudonym_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Key, "pseudonym", lambda self, case_id: "P-same")
    with pytest.raises(UsageError, match="use another key"):
        all_pseudonyms(KEY, ["a", "b"])
    assert all_pseudonyms(KEY, ["a", "a"]) == {"a": "P-same"}


@pytest.fixture
def disguise(tmp_path: Path) -> Disguised:
    """Of an input with telling names, some of them common words or with blanks."""
    root = tmp_path / "from Mordor"
    for name in ("Smith", "John (old) Doe", "ct", "12", "Long", "O'Hara, Scarlett"):
        (root / name).mkdir(parents=True)
        (root / name / f"{name} 1.dcm").touch()
    shown = Disguised(KEY, root, None)
    shown.cases(
        [
            Case("Smith", "dicom", (root / "Smith" / "Smith 1.dcm",), series_uid="odd-uid"),
            Case("Smith_2", "dicom", (root / "Smith" / "Smith 1.dcm",)),
            Refusal("ct", said("no"), aside=(SeriesAside("other-uid", 3, "a localizer"),)),
            Refusal("12", said("no")),
            Refusal("Long", said("no")),
        ]
    )
    return shown


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Smith: it holds no CT image; give the CT.", "{Smith}: it holds no CT image; give the CT."),
        ("called Smith too, so this one is called Smith_2", "{Smith} too, so this one is called {Smith_2}"),
        ("SMITH: no image found", "{Smith}: no image found"),
        ("ct: it cannot be opened", "{ct}: it cannot be opened"),
        ("12 slices of 40 are there twice; 12: no image", "12 slices of 40 are there twice; {12}: no image"),
        ("3.0 mm apart over 12 mm", "3.0 mm apart over 12 mm"),
        ("no mask for Smith; put Smith.nii.gz there.", "no mask for {Smith}; put {Smith}.nii.gz there."),
        ("series 1.2.840.113619.2.55 taken", "series [1.2.840.113619.2.55] taken"),
        ("series 1.2.840.113619.2.55.", "series [1.2.840.113619.2.55]."),
        ("series odd-uid left out, and other-uid.", "series [odd-uid] left out, and [other-uid]."),
    ],
)  # fmt: skip
def test_texts_keep_their_words_and_lose_their_names(disguise: Disguised, text: str, expected: str) -> None:
    wanted = re.sub(r"\{(.+?)\}", lambda m: KEY.pseudonym(m.group(1)), expected)
    wanted = re.sub(r"\[(.+?)\]", lambda m: KEY.uid(m.group(1)), wanted)
    assert disguise.text(text).endswith(wanted)


@pytest.mark.parametrize(
    "name", ["John (old) Doe", "O'Hara, Scarlett", "from Mordor", "John (old) Doe 1.dcm"]
)
def test_names_with_blanks_and_brackets_go_too(disguise: Disguised, name: str) -> None:
    for text in (f"{name}: gone", f"left out: {name}, {name.upper()}", f"the file {name} cannot be read"):
        assert name.casefold() not in disguise.text(text).casefold()


def test_on_a_disc_of_many_files_with_blanks_in_their_names_each_text_is_searched_for_few(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pattern of all 40,000 names would take minutes."""
    really, searched = deidentify._whole, []

    def counted(name: str) -> re.Pattern[str]:
        searched.append(name)
        return really(name)

    monkeypatch.setattr(deidentify, "_whole", counted)
    shown = Disguised(KEY, tmp_path, None)
    shown.cases([Case("a", "dicom", tuple(tmp_path / "a" / f"IM {k:06d}" for k in range(40_000)))])
    for k in range(0, 40_000, 40):
        assert f"IM {k:06d}" not in shown.text(f"the file IM {k:06d} cannot be read and was left out.")
    assert len(searched) == 1000  # one name for each text


NAMES = st.text(
    st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/\0"), min_size=3, max_size=12
)


@settings(max_examples=60, deadline=None)
@given(NAMES.filter(lambda n: n.strip(" .") and not n.isdigit()))
def test_a_folder_of_any_name_goes_from_the_sentence_of_an_error(name: str) -> None:
    shown = Disguised(KEY, Path("/nowhere"), None)
    shown.cases([Refusal(name, said("no"))])
    text = shown.text(f"{name}: slice 1 of 2 is bad; copy it again.")
    assert name.casefold() not in text.casefold().replace(KEY.pseudonym(name).casefold(), "")
    assert (
        text.endswith(" slice 1 of 2 is bad; copy it again.")
        or name in " slice 1 of 2 is bad; copy it again."
    )


def test_a_result_is_hidden_in_every_field(disguise: Disguised) -> None:
    facts = {
        "input": {
            "kind": "dicom",
            "sha256": "ab" * 32,
            "series_uid": "odd-uid",
            "study_uid": "1.2.840.1.1",
            "frame_of_reference_uid": None,
            "archives": ["Smith.zip"],
            "lattice": {"size_zyx": [1, 2, 3]},
        },
        "native": {"size_zyx": [1, 2, 3]},
    }
    result = CaseResult("Smith", "failed", "Smith: bad", warnings=("Smith",), notes=("Smith",), facts=facts)
    hidden = disguise.result(result)
    text = json.dumps(hidden.to_json())
    assert "mith" not in text
    assert "odd-uid" not in text
    assert hidden.facts["input"]["sha256"] == "ab" * 32
    assert hidden.facts["input"]["kind"] == "dicom"
    assert hidden.facts["input"]["series_uid"] == KEY.uid("odd-uid")
    assert hidden.facts["input"]["frame_of_reference_uid"] is None
    assert hidden.facts["native"] == facts["native"]
    assert result.facts["input"]["series_uid"] == "odd-uid"  # the true one is untouched


def test_cases_are_worked_on_in_an_order_that_tells_nothing() -> None:
    found = [Refusal(f"patient-{k:02d}", said("no")) for k in range(30)]
    order = [case.case_id for case in Disguised(KEY, Path("/nowhere"), None).cases(found)]
    assert sorted(order) == [case.case_id for case in found]
    assert order != sorted(order)
    assert [KEY.pseudonym(i) for i in order] == sorted(KEY.pseudonym(i) for i in order)


def test_an_error_is_raised_again_without_names_and_one_on_results_as_it_is(disguise: Disguised) -> None:
    with pytest.raises(AieneError) as caught, disguise.errors():
        raise InputError(Path("/data/Smith"), "it cannot be opened", "check it")
    assert "Smith" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    with pytest.raises(OutputError), disguise.errors():
        raise OutputError(Path("/out/case.json"), "the disk is full", "free some space")


@pytest.mark.parametrize("case_id", ["7", "12", "123", "ct", "J", "a", "left"])
def test_ids_that_are_words_or_short_numbers_go_wherever_they_stand(tmp_path: Path, case_id: str) -> None:
    shown = Disguised(KEY, Path("/nowhere"), None)
    shown.cases([Refusal(case_id, said("no"), source=f"{case_id}.nii")])
    pseudonym = KEY.pseudonym(case_id)
    with pytest.raises(InputError) as caught:
        find_mask(tmp_path, case_id)
    told = shown.text(caught.value.told)
    assert told.endswith(
        f": no mask for the case {pseudonym}; put {pseudonym}.nii.gz there, or leave the case out."
    )
    template = "another input would be called {} too; 7 of 12 slices lie to the left of a ct, 123 mm"
    assert shown.text(said(template, case_name(case_id))) == template.replace("{}", pseudonym)


def test_the_data_file_of_a_header_is_not_named_though_it_is_not_there(tmp_path: Path) -> None:
    header = tmp_path / "p.nhdr"
    header.write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\nspacings: 1 1 3\nendian: little\n"
        "encoding: raw\ndata file: Frodo_Baggins.raw\n\n"
    )
    with pytest.raises(InputError) as caught:
        read_nrrd(Case("p", "nrrd", (header,)))
    assert "its data file Frodo_Baggins.raw is missing" in str(caught.value)
    for error in (caught.value, pickle.loads(pickle.dumps(caught.value))):  # noqa: S301 (from a worker)
        told = Disguised(KEY, tmp_path, None).text(error.told)
        assert told.endswith(
            f"its data file {KEY.label('F', 'Frodo_Baggins.raw')} is missing; put it next to the header."
        )


def test_a_sentence_in_a_sentence_keeps_its_names_marked() -> None:
    shown = Disguised(KEY, Path("/nowhere"), None)
    inner = said("the file {} cannot be read", file_name("Sam.dcm"))
    outer = InputError(Path("/data/Rosie"), said("bad, and {}", inner), "copy {again}").told
    outer = outer.before(";", said(", with {}", uid_name("1.2.3.4.5")))
    assert str(outer) == "Rosie: bad, and the file Sam.dcm cannot be read, with 1.2.3.4.5; copy {again}."
    told = shown.text(joined(" | ", [outer, "plain"]))
    assert "Sam" not in told
    assert "Rosie" not in told
    assert "1.2.3.4.5" not in told
    assert told.endswith("; copy {again}. | plain")


def test_an_unforeseen_error_is_logged_without_its_words(disguise: Disguised) -> None:
    try:
        raise ValueError("/data/Smith")
    except ValueError as error:
        logged = disguise.error(error)
    assert str(logged) == "ValueError"
    assert logged.__cause__ is None
    assert logged.__traceback__ is not None


def test_a_key_travels_between_processes() -> None:
    assert pickle.loads(pickle.dumps(KEY)) == KEY  # noqa: S301


def test_the_owner_of_the_key_gets_the_table_back(tmp_path: Path) -> None:
    root = tmp_path / "cts"
    root.mkdir()
    for name in ("anna.nii.gz", "berta.nii.gz"):
        (root / name).write_text("an image as good as any here")
    done = CliRunner().invoke(alone, [str(key_file(tmp_path)), str(root)])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines() == [
        "case_id,pseudonym",
        f"anna,{KEY.pseudonym('anna')}",
        f"berta,{KEY.pseudonym('berta')}",
    ]
    as_json = CliRunner().invoke(alone, [str(key_file(tmp_path)), str(root), "--json"])
    assert json.loads(as_json.stdout) == {name: KEY.pseudonym(name) for name in ("anna", "berta")}


def test_the_ids_of_a_clinical_table_get_the_same_pseudonyms(tmp_path: Path) -> None:
    table = tmp_path / "clinical.csv"
    table.write_text("﻿patient,age\nanna,61\n,50\n berta ,70\nanna,61\n", encoding="utf-8")
    words = [str(key_file(tmp_path)), str(table)]
    done = CliRunner().invoke(alone, [*words, "--column", "patient"])
    assert done.stdout.splitlines()[1:] == [f"{name},{KEY.pseudonym(name)}" for name in ("anna", "berta")]
    refused = CliRunner().invoke(alone, words)
    assert refused.exit_code == 2
    assert "it has no column case_id; name one with --column (patient, age)" in refused.stderr


def test_words_that_do_not_fit_are_refused_before_anything_is_done(tmp_path: Path) -> None:
    key = key_file(tmp_path)
    source = tmp_path / "in"
    source.mkdir()
    out = tmp_path / "out"
    for words, problem in (
        (["--list", "--pseudonymise", str(key)], "--list shows the names of the input"),
        (["-o", str(out), "--pseudonymise", str(tmp_path / "none")], "no such key file"),
        (["-o", str(tmp_path), "--pseudonymise", str(key)], "is in the results folder"),
        (["-o", str(out), "--dicom-out", "--num-parts", "2"], "of a whole run"),
        (["-o", str(out), "--dicom-out", "--to", "dicom-pdf"], "dicom-pdf"),
        (["-o", str(out), "--source-dicom", str(source)], "add --dicom-out"),
        (["-o", str(out), "--dicom-out", "--source-dicom", str(tmp_path / "no")], "no such folder"),
    ):
        done = CliRunner().invoke(app, ["run", str(source), *words])
        assert done.exit_code == 2, done.output
        assert problem in done.stderr
    assert not out.exists()


def test_an_input_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    words = ["run", str(tmp_path / "Smith"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, [*words, "--pseudonymise", str(key_file(tmp_path))])
    assert done.exit_code == 2
    assert "it does not exist" in done.stderr
    assert "Smith" not in done.stderr
