"""Input and results by URL: against fsspec's store in memory, and against a server of S3 where there is one.

    MOTO_SERVER=PATH/TO/moto_server pytest tests/cohort/test_object_store.py

moto goes into an environment of its own: it needs an older python-dateutil than ours.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pandas as pd
import pytest
from typer.testing import CliRunner

from aiene import object_store
from aiene.cli.app import app
from aiene.errors import InputError, OutputError, UsageError
from aiene.object_store import Place, at_home, is_url

pytestmark = pytest.mark.usefixtures("work")
SERVER = os.environ.get("MOTO_SERVER") or shutil.which("moto_server")
TABLES = ("cases", "nodes", "patients")


@pytest.fixture
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server of S3 on the loopback with an empty bucket `cts`; its address.

    Its parameter is how many calls are answered before it looks at the rights of whoever calls.
    """
    if SERVER is None:
        pytest.skip("no server of S3: install moto[server] elsewhere and set MOTO_SERVER")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    rights = {"INITIAL_NO_AUTH_ACTION_COUNT": str(getattr(request, "param", 10**9))}
    with subprocess.Popen(
        [SERVER, "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **rights},
    ) as server:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                urllib.request.urlopen(urllib.request.Request(f"{address}/cts", method="PUT"), timeout=5)
                break
            except OSError:
                time.sleep(0.2)
        for name, value in {
            "AWS_ENDPOINT_URL": address,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        yield address
        server.terminate()


def run(*words: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["run", *words, "--device", "cpu", "--jobs", "1"])
    return done.exit_code, " ".join(done.output.split())


def test_what_is_a_url() -> None:
    assert is_url("s3://bucket/a")
    assert is_url("memory://a")
    for place in ("a/b", "/a", "C:\\data", "a:b", ""):
        assert not is_url(place)


def test_objects_are_brought_once_and_again_where_they_changed(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    memory.pipe({"/in/a/one.txt": b"1", "/in/two.txt": b"22", "/inside.txt": b"other"})
    place = Place("memory://in")
    assert {name: at.size for name, at in place.bring(tmp_path).items()} == {"a/one.txt": 1, "two.txt": 2}
    assert (tmp_path / "a" / "one.txt").read_bytes() == b"1"
    kept = (tmp_path / "two.txt").stat()
    memory.pipe_file("/in/a/one.txt", b"x")
    place.bring(tmp_path)
    assert (tmp_path / "a" / "one.txt").read_bytes() == b"x"
    assert (tmp_path / "two.txt").stat().st_ino == kept.st_ino
    assert not list(tmp_path.rglob("*.half"))
    alone = Place("memory://in/two.txt").bring(tmp_path / "alone")
    assert list(alone) == ["two.txt"]


def test_a_disk_by_url_makes_its_folders(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/new")
    place.put("a/b.txt", b"x")
    assert (tmp_path / "new" / "a" / "b.txt").read_bytes() == b"x"
    assert list(place.bring(tmp_path / "here")) == ["a/b.txt"]
    assert (tmp_path / "here" / "a" / "b.txt").read_bytes() == b"x"


def test_a_name_that_leads_out_of_the_folder_is_refused(
    memory: fsspec.AbstractFileSystem, tmp_path: Path
) -> None:
    memory.store["/in/../../escaped.txt"] = memory.open("/in/x", "wb")
    with pytest.raises(InputError, match="leads out of a folder"):
        Place("memory://in").bring(tmp_path / "here")
    assert not (tmp_path / "escaped.txt").exists()


def test_urls_of_no_store_and_empty_places_are_one_sentence(memory: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(UsageError, match="no object store is known by such a URL"):
        Place("carrier-pigeon://a")
    with pytest.raises(InputError, match="no object lies there"), at_home("memory://nothing", "out"):
        raise AssertionError("opened")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (PermissionError("403 Forbidden"), "this account has no right to read there"),
        (OSError("Generic S3 error: <Code>NoSuchBucket</Code>"), "there is no such bucket"),
        (OSError("error sending request for url"), "no object store answers"),
        (OSError("it is odd"), "the store refused to read (it is odd)"),
    ],
)
def test_what_a_store_refuses_is_one_sentence(
    memory: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    place = Place("memory://in")
    monkeypatch.setattr(place._fs, "find", refuse, raising=False)
    with pytest.raises(InputError) as told:
        place.objects()
    assert said in str(told.value)


@pytest.mark.slow
def test_results_by_url_are_those_of_a_folder_and_a_second_call_goes_on(
    memory: fsspec.AbstractFileSystem, cts: Path, masks: Path, contoured_run: Path, work: Path
) -> None:
    for file in cts.glob("*.nii.gz"):
        memory.pipe_file(f"/in/{file.name}", file.read_bytes())
    check_a_store("memory", memory, masks, contoured_run, work)


@pytest.mark.slow
def test_a_server_of_s3_serves_input_and_results(
    s3: str, cts: Path, masks: Path, contoured_run: Path, tmp_path: Path, work: Path
) -> None:
    place = Place("s3://cts/in")
    for file in cts.glob("*.nii.gz"):
        place.put(file.name, file.read_bytes())
    check_a_store("s3", place._fs, masks, contoured_run, work)
    code, said = run("s3://nowhere/in", "-o", str(tmp_path / "o"))
    assert code == 2
    assert "there is no such bucket" in said


@pytest.mark.slow
@pytest.mark.parametrize("s3", [1], indirect=True)
def test_a_bucket_without_rights_is_told_before_the_first_case(s3: str, cts: Path, tmp_path: Path) -> None:
    for words in (("s3://cts/in", "-o", str(tmp_path / "o")), (str(cts), "-o", "s3://cts/out")):
        code, said = run(*words)
        assert code == 2
        assert "this account has no right to read there; check the credentials" in said
    assert not (tmp_path / "o" / "cases").exists()


@pytest.mark.slow
def test_a_store_that_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    code, said = run("s3://cts/in", "-o", str(tmp_path / "o"))
    assert code == 2
    assert "no object store answers" in said


def check_a_store(
    protocol: str, store: fsspec.AbstractFileSystem, masks: Path, contoured_run: Path, work: Path
) -> None:
    """Input and results by URL against a run over folders: the same bytes, taken up again, nothing left."""
    own = ("--masks", str(masks))  # no segmenter: this is about the store
    root = "cts/" if protocol == "s3" else ""
    code, said = run(f"{protocol}://{root}in", "-o", f"{protocol}://{root}out", *own)
    assert code == 0, said
    assert f"Results in {protocol}://{root}out" in said
    assert not list(work.rglob("*.nii.gz"))  # no CT of a patient stays behind

    def content(name: str) -> bytes:
        return bytes(store.cat_file(f"{root}out/{name}"))

    for name in ("nodes.csv", "patients.csv", *(f"cases/{c}/labels.nii.gz" for c in ("one", "two"))):
        assert content(name) == (contoured_run / name).read_bytes(), name
    for name in TABLES:
        typed = pd.read_parquet(io.BytesIO(content(f"{name}.parquet")))
        plain = pd.read_csv(io.BytesIO(content(f"{name}.csv")), dtype=str)
        assert list(typed.columns) == list(plain.columns)
        assert typed.case_id.tolist() == plain.case_id.tolist()
    nodes = pd.read_parquet(io.BytesIO(content("nodes.parquet")))
    assert nodes.ene.dtype.kind == "f"
    assert json.loads(content("run.json"))["settings"]["input"] == f"{protocol}://{root}in"
    before = content("cases/one/case.json")
    code, said = run(f"{protocol}://{root}in", "-o", f"{protocol}://{root}out", *own)
    assert code == 0, said
    assert "already done" in said
    assert content("cases/one/case.json") == before


def test_what_was_done_is_in_the_store_when_the_rest_cannot_be(
    memory: fsspec.AbstractFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(object_store, "_SEND_EVERY_S", 0.0)

    def ended_midway() -> None:
        with at_home(str(tmp_path), "memory://out") as (_, results, _):
            folder = results.folder / "cases" / "one"
            folder.mkdir(parents=True)
            (folder / "case.json").write_text("{}")
            (results.folder / ".aiene").mkdir(exist_ok=True)
            (results.folder / ".aiene" / "written.jsonl").write_text("note\n")
            results.done("one")
            assert memory.cat_file("/out/cases/one/case.json") == b"{}"
            assert memory.cat_file("/out/.aiene/written.jsonl") == b"note\n"
            (results.folder / "run.json").write_text("{}")
            raise OutputError("x", "the disk is full", "free some space")

    with pytest.raises(OutputError, match="the disk is full"):
        ended_midway()
    assert memory.cat_file("/out/run.json") == b"{}"
