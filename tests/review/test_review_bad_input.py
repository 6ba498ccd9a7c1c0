"""What a review says of a run that is not as it should be."""

from __future__ import annotations

from pathlib import Path

import pytest
from starlette.testclient import TestClient
from typer.testing import CliRunner

from aiene.cli.app import app
from aiene.results.records import CaseResult
from aiene.results.store import RunStore
from aiene.review.server import make_app
from builders.export_runs import Run
from builders.reviews import CountingReview
from builders.viewer_runs import write_patterned_run

HOST = "127.0.0.1:8433"
EVIL = "<img src=x onerror=document.title=1>"


def client_of(run: Run) -> TestClient:
    client = TestClient(
        make_app(CountingReview(run.out), "key", frozenset({HOST})),
        base_url=f"http://{HOST}",
        raise_server_exceptions=False,
    )
    client.get("/?token=key")
    return client


@pytest.fixture
def client(run: Run) -> TestClient:
    """Of a run that ended half-way, in which a case failed."""
    RunStore(run.out).write_case(CaseResult("broken", "failed", "the CT holds no neck; check it."), None)
    (run.out / "cases.csv").write_text(
        "case_id,status,reason,n_nodes,n_ene,warnings,seconds,source\ncase,ok,,2,1,,1,case\n"
        "later,skipped,not done yet,,,,0,later.nii.gz\n"
    )
    return client_of(run)


def test_a_folder_without_a_run_is_refused_in_a_sentence(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["review", str(tmp_path), "--no-browser"])
    assert done.exit_code == 2
    assert "there are no results of a run" in " ".join(done.output.split())


def test_cases_that_failed_or_are_not_done_are_told_and_cannot_be_opened(client: TestClient) -> None:
    text = client.get("/").text
    assert "the CT holds no neck; check it." in text
    assert "not done yet" in text
    assert 'href="/case/case"' in text
    assert 'href="/case/broken"' not in text
    answer = client.get("/case/broken")
    assert answer.status_code == 400
    assert "the CT holds no neck" in answer.json()["error"]
    assert client.get("/case/later").status_code == 404
    assert client.get("/case/case").status_code == 200


def test_a_ct_that_was_moved_or_changed_is_told(run: Run) -> None:
    ct = run.series / "case.nii.gz"
    moved = ct.rename(run.out.parent / "elsewhere.nii.gz")
    answer = client_of(run).get("/case/case")
    assert answer.status_code == 400
    assert "no longer where the run found it" in answer.json()["error"]
    assert "--images" in answer.json()["error"]
    other = write_patterned_run(run.out.parent / "other")
    content = bytearray((other.series / "case.nii.gz").read_bytes())
    moved.rename(ct)
    ct.write_bytes(bytes(content[:-1]))
    assert client_of(run).get("/case/case").status_code == 400


def test_markup_in_a_case_id_and_in_words_stays_text(run: Run) -> None:
    RunStore(run.out).write_case(CaseResult(EVIL, "failed", EVIL, warnings=(EVIL,)), None)
    client = client_of(run)
    answer = client.get("/")
    assert EVIL not in answer.text
    assert answer.text.count("&lt;img src=x") == 3
    refused = client.get("/case/%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E")
    assert refused.status_code == 400
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["x-content-type-options"] == "nosniff"
    saved = client.post("/save/case", json={"base": 0, "status": "accepted", "reason": EVIL})
    assert saved.status_code == 200
    assert EVIL not in client.get("/case/case").text


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--host", "0.0.0.0"], "--host beyond this machine needs --certfile and --keyfile."),
        (["--certfile", "none.pem"], "--certfile and --keyfile belong together."),
        (["--certfile", "none.pem", "--keyfile", "none.pem"], "are not a certificate and its key"),
        (["--certfile", "words.pem", "--keyfile", "words.pem"], "are not a certificate and its key"),
        (["--reader", "Agreement"], "this name is taken"),
        (["--reader", "../anna"], "it names a folder"),
    ],
)
def test_what_cannot_be_served_is_refused_in_a_sentence(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str
) -> None:
    (tmp_path / "words.pem").write_text("no certificate")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["review", str(run.out), "--no-browser", *words])
    assert done.exit_code == 2
    assert said in " ".join(done.output.split())
