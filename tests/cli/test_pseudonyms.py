"""Keys, pseudonyms, and texts without names."""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import pickle
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import typer
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.uid import UID
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.cli.folders import pseudonyms
from aiene.deidentify import Disguised, Key, Plain, all_pseudonyms, read_key
from aiene.errors import (
    NOT_SHOWN,
    AieneError,
    CaseError,
    InputError,
    MissingExtraError,
    OutputError,
    TableError,
    UnforeseenError,
    UsageError,
    case_name,
    file_name,
    joined,
    library_reason,
    os_reason,
    ours,
    said,
    uid_name,
)
from aiene.ingest.case import Case, Refusal
from aiene.ingest.find import find_cases
from aiene.ingest.masks import find_mask
from aiene.ingest.read import read_case
from aiene.ingest.readers.nrrd import read_nrrd
from aiene.results.records import CaseResult
from builders.archives import pack
from builders.dicom_files import write_series

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
def disguise() -> Disguised:
    """Of an input with telling names, some of them common words or with blanks."""
    shown = Disguised(KEY)
    shown.cases(
        [
            Case("Smith", "dicom", (Path("Smith 1.dcm"),), series_uid="odd-uid", patient="Agent Smith"),
            *(Refusal(name, said("no")) for name in ("ct", "12", "Long", "John (old) Doe")),
        ]
    )
    return shown


def test_numbers_and_our_words_stay_and_each_name_has_its_stand_in(disguise: Disguised) -> None:
    template = "{}: {} of {:.1f} mm, {} and {} as {} of {}"
    text = said(
        template,
        file_name("Smith.nii"),
        3,
        2.5,
        uid_name("odd-uid"),
        case_name("Smith_2"),
        ours("DICOM"),
        (512, 512),
    )
    assert text == "Smith.nii: 3 of 2.5 mm, odd-uid and Smith_2 as DICOM of (512, 512)"
    file, case, uid = KEY.label("F", "Smith.nii"), KEY.pseudonym("Smith_2"), KEY.uid("odd-uid")
    assert disguise.text(text) == f"{file}: 3 of 2.5 mm, {uid} and {case} as DICOM of (512, 512)"


@pytest.mark.parametrize("name", ["Smith", "sMITH", "Agent Smith", "ct", "12", "John (old) Doe"])
def test_a_folder_that_is_called_like_its_case_or_patient_has_the_same_pseudonym(
    disguise: Disguised, name: str
) -> None:
    known = {"smith": "Smith"}.get(name.casefold(), name)
    assert disguise.text(said("{}: gone", file_name(name))) == f"{KEY.pseudonym(known)}: gone"


NAMES = st.text(st.characters(exclude_characters="/\0"), min_size=1, max_size=20).filter(str.strip)


@settings(max_examples=100, deadline=None)
@given(NAMES, st.sampled_from([file_name, case_name, uid_name, str, repr, ValueError, Path, lambda n: [n]]))
def test_no_name_of_any_letters_is_shown_however_it_is_put_in(
    name: str, marked: Callable[[str], object]
) -> None:
    """Regular expressions, common words, blanks, letters of any script, braces, half characters."""
    template = "{}: {:.1f} mm from the left; copy {} again"
    shown = Disguised(KEY)
    told = shown.text(said(template, marked(name), 3.0, marked(f"the {name}")))
    other = shown.text(said(template, marked("no-body"), 3.0, marked("the no-body")))
    words = re.compile(r"[FP]-\w{10}|2\.25\.\d+")
    assert words.sub("*", told) == words.sub("*", other)


def hospital(root: Path, name: str) -> Path:
    """An input with most faults that are told of, where every name, id and free word of a header is one."""
    words: dict[str, Any] = {
        "PatientID": name,
        "PatientName": name,
        "SpecificCharacterSet": "ISO_IR 192",
        "SeriesDescription": name,
    }
    write_series(root / f"{name} gap", leave_out=[3], study="gap", **words)
    whole = write_series(root / f"{name} whole", StudyDescription=name, **words)
    whole[0].with_name(f"{name}.dcm").write_bytes(whole[0].read_bytes()[:900])
    write_series(root / f"{name} whole" / "other", series="short", slices=5, **words)
    (root / f"{name}.nii.gz").write_text(name)
    (root / f"{name}.tar").write_text(name)
    (root / "nothing" / name).mkdir(parents=True)
    (root / f"{name} head.nhdr").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 9 9 9\nspacings: 1 1 3\nendian: little\n"
        f"encoding: raw\ndata file: {name!r}.raw\n\n"
    )
    ramp = np.linspace(-1000, 1000, 9**3).astype(np.int16).reshape(9, 9, 9)
    sitk.WriteImage(sitk.GetImageFromArray(ramp), str(root / "plain.nrrd"))
    odd = (root / "plain.nrrd").read_bytes().replace(b"left-posterior-superior", name.encode()[:12])
    (root / f"{name} space.nrrd").write_bytes(odd)
    (root / "plain.nrrd").unlink()
    (root / f"{name} sides.mha").write_bytes(
        b"ObjectType = Image\nNDims = 3\nDimSize = 9 9 9\nElementSpacing = 1 1 1\nElementType = MET_SHORT\n"
        + f"AnatomicalOrientation = {name!r}\n".encode()
        + b"TransformMatrix = 1 0 0 0 1 0 0 0 1\nElementDataFile = LOCAL\n"
        + np.linspace(-1000, 1000, 9**3).astype("<i2").tobytes()
    )
    (root / "inner").mkdir()
    (root / "inner" / f"{name}.zip").write_bytes(b"PK\3\4" + bytes(60))
    pack(root / "inner", root / f"{name}.zip")
    shutil.rmtree(root / "inner")
    return root


def all_that_is_said(root: Path) -> tuple[list[str], list[str]]:
    """As in a run with true names, and in a pseudonymised one, each stand-in a star."""
    found, left_aside = find_cases(root)
    true, hidden = Plain(), Disguised(KEY)
    results = []
    for item in hidden.cases(found):
        result = CaseResult(
            item.case_id, "failed", source=item.source, patient=item.patient, notes=item.notes
        )
        if isinstance(item, Refusal):
            results.append(replace(result, reason=item.reason))
            continue
        try:
            ct = read_case(item)
        except InputError as error:
            results.append(replace(result, reason=error.told, warnings=item.warnings))
        else:
            facts = {"input": {**ct.source, "lattice": {}}}
            results.append(replace(result, warnings=(*item.warnings, *ct.warnings), facts=facts))
    plain = [*true.texts(left_aside), *(json.dumps(true.result(r).to_json()) for r in results)]
    shown = [*hidden.texts(left_aside), *(json.dumps(hidden.result(r).to_json()) for r in results)]
    return plain, sorted(re.sub(r"\b[FP]-[0-9a-z]{10}|2\.25\.\d+", "*", text) for text in shown)


OTHERS = (
    "Smith",
    "[a-z]+ (of|to) .*",
    "\u00dcnal \u00c7elik",
    "\u65e5\u672c \u592a\u90ce",
    "{} %s {0}",
    "left and right",
    "O'Hara, S.",
)


@pytest.fixture(scope="module")
def nobody(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], list[str]]:
    """What is said where everything is called Mr Nobody."""
    return all_that_is_said(hospital(tmp_path_factory.mktemp("nobody"), "Mr Nobody"))


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_said_of_an_input_is_the_same_whatever_it_is_called(
    tmp_path: Path, nobody: tuple[list[str], list[str]], name: str
) -> None:
    of_nobody, reference = nobody
    _, shown = all_that_is_said(hospital(tmp_path / "other", name))
    assert shown == reference
    assert len(set(shown)) > 7
    assert not any("Nobody" in text for text in shown)
    assert sum(json.dumps("Mr Nobody")[1:-1] in text for text in of_nobody) > 7
    told = "\n".join(shown)
    for words in (
        "*: an archive of this kind is not opened; unpack it",
        "1 slice is missing within z = 106.0 to 112.0 mm (spacing 3.00 mm)",
        "the file * cannot be read and was left out",
        "series * taken (by the rule, of 2): axial, 8 slices 3.00 mm apart over 24 mm",
        "its data file * is missing; put it next to the header",
        "it contains another archive (*), which is not opened",
        f"AnatomicalOrientation {NOT_SHOWN} contradicts its TransformMatrix (RAI)",
        "it contains no image, although its name suggests one",
    ):
        assert words in told


@pytest.mark.parametrize("text", ["Smith: it is bad", "series 1.2.3.4 is bad", f"{said('Smith')}", "slice 3"])
def test_a_text_that_does_not_know_its_arguments_is_not_shown(disguise: Disguised, text: str) -> None:
    """As rows of an older version are, or text put together by other means."""
    assert disguise.text(text) == NOT_SHOWN
    assert disguise.text("") == ""


def test_what_libraries_and_the_system_say_is_told_by_its_kind(disguise: Disguised, tmp_path: Path) -> None:
    with pytest.raises(OSError) as missing:  # noqa: PT011
        (tmp_path / "Smith").open()
    with pytest.raises(RuntimeError) as unread:
        sitk.ReadImage(str(tmp_path / "Smith.nrrd"))
    assert "Smith" in str(missing.value)
    assert "Smith" in str(unread.value)
    given = OSError(5, "the disk of Smith", "Smith")
    odd = OSError("about Smith")
    for argument, instead in (
        (os_reason(missing.value), "No such file or directory"),
        (os_reason(given), os.strerror(5)),
        (os_reason(odd, "input/output error"), "OSError"),
        (os_reason(odd), "OSError"),
        (library_reason(unread.value), "RuntimeError"),
        (library_reason(ValueError("x"), "Smith's"), "ValueError"),
        (missing.value, NOT_SHOWN),
        (str(unread.value), NOT_SHOWN),
    ):
        assert disguise.text(said("it failed ({})", argument)) == f"it failed ({instead})"
    assert str(said("it failed ({})", os_reason(given))) == "it failed (the disk of Smith)"
    assert str(said("it failed ({})", os_reason(odd))) == "it failed (None)"


def test_every_error_tells_its_sentence_with_names_and_without(disguise: Disguised) -> None:
    problem = said("its field is {!r}", "Smith")
    for error, shown in (
        (InputError("/data/Smith", problem, "mend it"), f"its field is {NOT_SHOWN}; mend it."),
        (CaseError(problem, "mend it"), f"its field is {NOT_SHOWN}; mend it."),
        (UsageError("leave one out."), "leave one out."),
        (UsageError(said("{}: no.", "Smith")), f"{NOT_SHOWN}: no."),
        (UnforeseenError("KeyError"), "internal error (KeyError), see the log."),
        (MissingExtraError("Reading", "x", "y"), "Reading needs x; install aiene[y]."),
        (
            MissingExtraError("Reading", "x", "y", "no /Smith/x.so"),
            f"x, which is installed but cannot be loaded ({NOT_SHOWN}); reinstall aiene[y], all parts from "
            "one build.",
        ),
        (TableError(["Smith is bad"]), NOT_SHOWN),
        (TableError([said("row {} is bad", 2), "Smith"]), f"2 problems:\\n  row 2 is bad\\n  {NOT_SHOWN}"),
    ):
        for same in (error, pickle.loads(pickle.dumps(error))):  # noqa: S301 (from a worker)
            assert str(same) == str(error)
            assert str(same.told) == str(same).replace("\n", "\\n")
            assert disguise.text(same.told).endswith(shown)


def test_a_result_is_hidden_in_every_field(disguise: Disguised) -> None:
    facts = {
        "input": {
            "kind": "dicom",
            "sha256": "ab" * 32,
            "series_uid": "odd-uid",
            "study_uid": "1.2.840.1.1",
            "frame_of_reference_uid": None,
            "archives": ["Smith.zip"],
            "space": "that of Smith",
            "lattice": {"size_zyx": [1, 2, 3]},
        },
        "native": {"size_zyx": [1, 2, 3]},
    }
    noted = said("{}: bad {}", file_name("Smith"), 1)
    result = CaseResult("Smith", "failed", noted, warnings=(noted,), notes=("Smith",), facts=facts)
    hidden = disguise.result(result)
    text = json.dumps(hidden.to_json())
    assert "mith" not in text
    assert "odd-uid" not in text
    assert hidden.facts["input"]["sha256"] == "ab" * 32
    assert hidden.reason == hidden.warnings[0] == f"{KEY.pseudonym('Smith')}: bad 1"
    assert hidden.notes == (NOT_SHOWN,)
    assert hidden.facts["input"]["space"] == NOT_SHOWN
    assert hidden.facts["input"]["archives"] == [KEY.label("F", "Smith.zip")]
    assert hidden.facts["input"]["kind"] == "dicom"
    assert hidden.facts["input"]["series_uid"] == KEY.uid("odd-uid")
    assert hidden.facts["input"]["frame_of_reference_uid"] is None
    assert hidden.facts["native"] == facts["native"]
    assert result.facts["input"]["series_uid"] == "odd-uid"  # the true one is untouched


def test_cases_are_worked_on_in_an_order_that_tells_nothing() -> None:
    found = [Refusal(f"patient-{k:02d}", said("no")) for k in range(30)]
    order = [case.case_id for case in Disguised(KEY).cases(found)]
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
    shown = Disguised(KEY)
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
        told = Disguised(KEY).text(error.told)
        assert told.endswith(
            f"its data file {KEY.label('F', 'Frodo_Baggins.raw')} is missing; put it next to the header."
        )


def test_a_sentence_in_a_sentence_keeps_its_names_marked() -> None:
    shown = Disguised(KEY)
    inner = said("the file {} cannot be read", file_name("Sam.dcm"))
    outer = InputError(Path("/data/Rosie"), said("bad, and {}", inner), "copy {again}").told
    outer = outer.before(";", said(", with {}", uid_name("1.2.3.4.5")))
    assert str(outer) == "Rosie: bad, and the file Sam.dcm cannot be read, with 1.2.3.4.5; copy {again}."
    told = shown.text(joined(" | ", [outer, "plain"]))
    assert "Sam" not in told
    assert "Rosie" not in told
    assert "1.2.3.4.5" not in told
    assert told.endswith(f"; copy {{again}}. | {NOT_SHOWN}")


@pytest.mark.parametrize(
    ("rule", "free"), [(None, False), ("PatientID", False), ("folder:-1", False), ("(Smith)", True)]
)
def test_an_expression_of_the_user_that_names_patients_is_a_label_in_the_record(
    disguise: Disguised, rule: str | None, free: bool
) -> None:
    assert disguise.rule(rule) == (KEY.label("id_from", "(Smith)") if free else rule)
    record = {"input": "/data", "masks": None, "series": None, **({} if rule is None else {"id_from": rule})}
    assert "Smith" not in json.dumps(disguise.settings(record))
    assert Plain().rule(rule) == rule


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


@pytest.mark.slow
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
    words[1] = str(tmp_path)
    key = ["--pseudonymise", str(tmp_path / "the.key")]
    for place in (["--masks"], ["--dicom-out", "--source-dicom"]):
        done = CliRunner().invoke(app, [*words, *place, str(tmp_path / "Smith"), *key])
        assert done.exit_code == 2
        assert f"{place[-1]} {KEY.label('F', 'Smith')}: no such folder" in done.stderr
