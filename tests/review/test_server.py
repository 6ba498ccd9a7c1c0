"""Who may ask the server what, and what it does with bodies that are no drawing of the case."""

from __future__ import annotations

import gzip
import json
import re
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from starlette.testclient import TestClient

from aiene.results.atomic import writing
from aiene.review import server
from aiene.review.server import make_app
from builders.export_runs import Run
from builders.reviews import CountingReview

HOST = "127.0.0.1:8432"


@pytest.fixture
def client(run: Run) -> Iterator[TestClient]:
    app = make_app(CountingReview(run.out), "right-token", frozenset({HOST}))
    with TestClient(app, base_url=f"http://{HOST}", raise_server_exceptions=False) as client:
        client.get("/?token=right-token")
        yield client


def state_of(client: TestClient) -> dict[str, Any]:
    page = client.get("/case/case")
    assert page.status_code == 200
    return json.loads(re.search(r'id="state">(.*?)</script>', page.text, re.DOTALL)[1])  # type: ignore[index]


def packed(voxels: np.ndarray) -> str:
    return b64encode(gzip.compress(voxels.tobytes())).decode()


def drawing_of(state: dict[str, Any], value: int = 1) -> np.ndarray:
    x, y, z = state["size"]
    drawing = np.zeros((z, y, x), np.uint8)
    drawing[1:4, 2:6, 3:9] = value
    return drawing


def body(state: dict[str, Any], drawing: np.ndarray, **more: Any) -> dict[str, Any]:
    return {
        "drawing": packed(drawing),
        "size": state["size"],
        "base": state["base"],
        "status": "corrected",
    } | more


def test_a_save_is_measured_and_answered(client: TestClient) -> None:
    state = state_of(client)
    assert (state["base"], state["count"]) == (0, 1)
    answer = client.post("/save/case", json=body(state, drawing_of(state), reason="why"))
    assert answer.status_code == 200
    now = answer.json()
    assert (now["base"], len(now["nodes"]), now["versions"][0]["reason"]) == (1, 1, "why")
    assert client.get("/").text.count("corrected") >= 1


def test_without_the_token_nothing_is_told(run: Run) -> None:
    app = make_app(CountingReview(run.out), "right-token", frozenset({HOST}))
    stranger = TestClient(app, base_url=f"http://{HOST}")
    for path in ("/", "/case/case", "/?token=wrong", "/case/case?token="):
        answer = stranger.get(path)
        assert answer.status_code == 403
        assert "case" not in answer.text.replace("aiene", "")
    assert stranger.post("/save/case", json={}).status_code == 403
    answer = stranger.get("/?token=right-token", follow_redirects=False)
    assert answer.status_code == 303
    assert "token" not in answer.headers["location"]
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "evil.example:8432"},
        {"Host": "127.0.0.1:9999"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Origin": f"https://{HOST}"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
    ids=str,
)
def test_other_hosts_and_origins_are_refused(client: TestClient, headers: dict[str, str]) -> None:
    assert client.get("/", headers=headers).status_code == 403
    assert client.post("/save/case", json={}, headers=headers).status_code == 403


@pytest.mark.parametrize(
    "path",
    [
        "/case/../case.json",
        "/case/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/case/..%5c..",
        "/case/other",
        "/run.json",
    ],
)
def test_paths_lead_to_cases_and_nowhere_else(client: TestClient, path: str) -> None:
    assert client.get(path).status_code == 404
    assert client.post(path.replace("/case/", "/save/", 1), json={}).status_code in (404, 405)


def test_bodies_that_are_no_drawing_of_the_case_are_refused(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(client)
    good = drawing_of(state)
    wrong = {
        "another grid": body(state, good, size=state["size"][::-1]),
        "too few voxels": body(state, good[1:]),
        "too many voxels": body(state, np.zeros(good.size + 1, np.uint8)),
        "a bomb": body(state, good) | {"drawing": b64encode(gzip.compress(bytes(50_000_000))).decode()},
        "no gzip": body(state, good) | {"drawing": b64encode(b"nonsense").decode()},
        "no base64": body(state, good) | {"drawing": "§"},
        "no status": body(state, good, status="whatever"),
        "no number": body(state, good, joins=[["a", 1]]),
    }
    for name, content in wrong.items():
        answer = client.post("/save/case", json=content)
        assert answer.status_code == 400, name
        assert answer.json()["error"].endswith("."), name
    assert client.post("/save/case", content=b"[1]").status_code == 400
    assert client.post("/save/case", content=b"{" * 5000).status_code == 400
    assert state_of(client)["base"] == 0, "none of them was saved"
    monkeypatch.setattr(server, "MOST_BYTES", 1000)
    assert client.post("/save/case", content=b"x" * 2000).status_code == 413

    # without a length it is read no further than the bound
    assert client.post("/save/case", content=iter([b" " * 900, b" " * 900])).status_code == 413


def test_two_windows_on_one_case(client: TestClient) -> None:
    state = state_of(client)
    assert client.post("/save/case", json=body(state, drawing_of(state))).status_code == 200
    answer = client.post("/save/case", json=body(state, drawing_of(state, 2)))
    assert answer.status_code == 409
    assert "another window" in answer.json()["error"]
    again = client.post("/save/case", json=body(state, drawing_of(state, 2), anyway=True))
    assert (again.status_code, again.json()["base"]) == (200, 2)


def test_a_full_disk_is_told_and_the_session_goes_on(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = state_of(client)

    def full(volume: Any, path: Any) -> None:
        with writing(path):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("aiene.results.reviews.write_nifti", full)
        answer = client.post("/save/case", json=body(state, drawing_of(state)))
    assert answer.status_code == 507
    assert "disk is full" in answer.json()["error"]
    assert client.post("/save/case", json=body(state, drawing_of(state))).json()["base"] == 1


def test_tools_answer_with_a_drawing(client: TestClient) -> None:
    state = state_of(client)
    ring = drawing_of(state)
    ring[2, 3:5, 4:8] = 0
    ask = {"drawing": packed(ring), "size": state["size"], "value": 1}
    filled = client.post("/edit/case", json=ask | {"tool": "fill"}).json()
    assert filled["value"] == 1
    assert client.post("/edit/case", json=ask | {"tool": "paint"}).status_code == 400
    assert client.post("/edit/case", json=ask | {"tool": "grow", "at": [999, 0, 0]}).status_code == 400
    assert client.post("/edit/case", json=ask | {"tool": "cut", "from": [1], "to": 3}).status_code == 400


def test_a_probability_at_the_threshold_is_shown_as_it_counts(run: Run) -> None:
    """0.30001 counts at 0.3; a page that says 0.3000 beside "yes" would contradict itself."""
    app = make_app(review := CountingReview(run.out), "t", frozenset({HOST}))
    result = review.results["case"]
    nodes = (replace(result.nodes[0], ene=0.30001, pos=0.9), *result.nodes[1:])
    review.results["case"] = replace(result, nodes=nodes)
    with TestClient(app, base_url=f"http://{HOST}") as client:
        client.get("/?token=t")
        first = state_of(client)["nodes"][0]
    assert (first["ene"], first["pos"]) == ("0.30001", "0.9000")


def test_a_blind_page_holds_nothing_of_the_model(run: Run) -> None:
    app = make_app(CountingReview(run.out, blind=True), "t", frozenset({HOST}))
    with TestClient(app, base_url=f"http://{HOST}") as client:
        client.get("/?token=t")
        state = state_of(client)
        assert state["nodes"] == []
        assert state["count"] is None
        saved = client.post("/save/case", json=body(state, drawing_of(state))).json()
        assert [node["ene"] for node in saved["nodes"]] == [None]
        assert saved["count"] is None
