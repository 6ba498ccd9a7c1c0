"""The review's pages and their answers over HTTP, for one browser on this machine.

Whoever asks must know the token, must have asked by our own name and port (a page elsewhere that has its name
point here is refused), and must be our own page. A body is read no further than what a drawing can take.
"""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import asdict, replace
from typing import Any, Final
from urllib.parse import quote, urlsplit

import numpy as np

from aiene.csv_tables import probability_text
from aiene.errors import AieneError, OutputError, UsageError, need
from aiene.results.nifti import nifti_bytes
from aiene.results.reviews import StaleError
from aiene.review.session import Change, Drawing, Opened, Review, cut, fill, grow, interpolate, next_value
from aiene.viewer import embedded
from aiene.viewer.case_page import about
from aiene.viewer.scene import PRIMARY

COOKIE: Final = "aiene_review"
MOST_BYTES: Final = 48_000_000
"""Of a request: a drawing of labels packs to under a hundredth of its voxels."""

_STATUSES: Final = ("accepted", "corrected", "set aside", "to do")
_SCRIPTS: Final = (embedded.NIIVUE, "volume.js", "viewer.js", "review.js")
_QUIET: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class TooLargeError(UsageError):
    """A request that is longer than a drawing can be."""

    def __init__(self) -> None:
        super().__init__("the request is too large for a drawing.")


def make_app(review: Review, token: str, hosts: frozenset[str], *, secure: bool = False) -> Any:
    """The application (ASGI).

    Parameters
    ----------
    token : that the first address holds; a cookie holds it afterwards.
    hosts : values of `Host` that are ours, such as `127.0.0.1:8123`.
    secure : it is served by TLS.

    Raises
    ------
    MissingExtraError : FastAPI is not installed.
    """
    fastapi = need("fastapi", extra="review", purpose="The review")
    responses = need("starlette.responses", extra="review", purpose="The review")
    base = need("starlette.middleware.base", extra="review", purpose="The review")

    async def guard(request: Any, call_next: Callable[[Any], Awaitable[Any]]) -> Any:
        problem = _stranger(request.headers, hosts, "https" if secure else "http")
        problem = problem or _without_token(request, token)
        if problem:
            return responses.JSONResponse({"error": problem}, 403, headers=_QUIET)
        if "token" in request.query_params:
            answer = responses.RedirectResponse("/", 303, headers=_QUIET)
            answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=secure, path="/")
            return answer
        answer = await call_next(request)
        answer.headers.update(_QUIET)
        return answer

    async def told(_: Any, error: Exception) -> Any:
        code = 409 if isinstance(error, StaleError) else 507 if isinstance(error, OutputError) else 400
        if isinstance(error, TooLargeError):  # and the rest of it is not read
            return responses.JSONResponse({"error": str(error)}, 413, headers={"Connection": "close"})
        return responses.JSONResponse({"error": str(error)}, code)

    app = fastapi.FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        routes=_routes(review),
        exception_handlers={AieneError: told},
    )
    app.add_middleware(base.BaseHTTPMiddleware, dispatch=guard)
    return app


def _routes(review: Review) -> list[Any]:
    responses = need("starlette.responses", extra="review", purpose="The review")
    routing = need("starlette.routing", extra="review", purpose="The review")
    threads = need("starlette.concurrency", extra="review", purpose="The review")
    unknown = {"error": "there is no such case in this run."}

    def work_list(_: Any) -> Any:
        return responses.HTMLResponse(_list_page(review))

    def case(request: Any) -> Any:
        case_id = request.path_params["case_id"]
        if case_id not in review.results:
            return responses.JSONResponse(unknown, 404)
        return responses.HTMLResponse(_case_page(review, case_id))

    def answering(work: Callable[[Review, str, dict[str, Any]], dict[str, Any]]) -> Any:
        async def answer(request: Any) -> Any:
            case_id = request.path_params["case_id"]
            if case_id not in review.results:
                return responses.JSONResponse(unknown, 404)
            body = await _body(request)
            return responses.JSONResponse(await threads.run_in_threadpool(work, review, case_id, body))

        return answer

    return [
        routing.Route("/", work_list),
        routing.Route("/case/{case_id:path}", case),
        routing.Route("/save/{case_id:path}", answering(_save), methods=["POST"]),
        routing.Route("/edit/{case_id:path}", answering(_edit), methods=["POST"]),
        routing.Route(
            "/state/{case_id:path}",
            answering(lambda review, case_id, _: _state(review, review.open(case_id))),
            methods=["POST"],
        ),
    ]


def _stranger(headers: Any, hosts: frozenset[str], scheme: str) -> str:
    """Why a request is not from our own page on our own address; empty where it is."""
    if headers.get("host", "") not in hosts:
        return "this server answers only at its own address."
    origin = headers.get("origin")
    if origin is not None and (urlsplit(origin).scheme != scheme or urlsplit(origin).netloc not in hosts):
        return "this server answers only its own pages."
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return "this server answers only its own pages."
    return ""


def _without_token(request: Any, token: str) -> str:
    given = request.query_params.get("token") or request.cookies.get(COOKIE) or ""
    right = hmac.compare_digest(given.encode(), token.encode())
    return "" if right else "open the address that aiene review printed: it contains the key."


async def _body(request: Any) -> dict[str, Any]:
    """The JSON of a request, read no further than `MOST_BYTES`.

    Raises
    ------
    TooLargeError : it is longer.
    UsageError : it is not a JSON object.
    """
    if int(request.headers.get("content-length") or 0) > MOST_BYTES:
        raise TooLargeError
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > MOST_BYTES:
            raise TooLargeError
        parts.append(part)
    try:
        content = json.loads(b"".join(parts))
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is not JSON.") from error
    if not isinstance(content, dict):
        raise UsageError("the request is not a JSON object.")
    return content


def _drawing(body: dict[str, Any], opened: Opened) -> Drawing | None:
    """The drawing of a request on the case's block; None where it has none.

    Raises
    ------
    UsageError : it cannot be unpacked, or is of another grid.
    """
    if body.get("drawing") is None:
        return None
    grid = opened.scene.grid
    if body.get("size") != list(grid.size[::-1]):
        raise UsageError("the drawing is on a different grid from the case; open the case again.")
    wanted = int(np.prod(grid.size))
    try:
        unpacking = zlib.decompressobj(wbits=31)
        voxels = unpacking.decompress(base64.b64decode(str(body["drawing"]), validate=True), wanted + 1)
    except (ValueError, zlib.error) as error:
        raise UsageError("the drawing cannot be unpacked.") from error
    if len(voxels) != wanted:
        raise UsageError("the drawing is on a different grid from the case; open the case again.")
    return np.frombuffer(voxels, np.uint8).reshape(grid.size).copy()


def _save(review: Review, case_id: str, body: dict[str, Any]) -> dict[str, Any]:
    opened = review.open(case_id)
    if body.get("status") not in _STATUSES:
        raise UsageError(f"a status is one of {', '.join(_STATUSES)}.")
    change = Change(
        drawing=_drawing(body, opened),
        base=_whole(body.get("base")),
        status=body["status"],
        reason=str(body.get("reason") or "")[:2000],
        joins=[(_whole(a), _whole(b)) for a, b in body.get("joins") or []],
        rejected={_whole(k): str(v)[:2000] for k, v in (body.get("rejected") or {}).items()},
        anyway=bool(body.get("anyway")),
    )
    return _state(review, review.save(case_id, change))


def _edit(review: Review, case_id: str, body: dict[str, Any]) -> dict[str, Any]:
    """A tool of `edits` on the drawing of a request; the new one."""
    opened = review.open(case_id)
    drawing = _drawing(body, opened)
    if drawing is None or opened.scene.ct is None:
        raise UsageError("there is nothing to edit.")
    spacing = opened.scene.grid.spacing
    tool, value, fresh = body.get("tool"), _value(body.get("value")), _value(body.get("fresh"))
    if tool in ("fill", "interpolate") and not value:
        raise UsageError("choose a node first.")
    if tool == "grow":
        value = value or next_value(drawing)
        drawing = grow(drawing, opened.scene.ct.array, spacing, _voxel(body.get("at"), drawing), value)
    elif tool == "fill":
        drawing = fill(drawing, value)
    elif tool == "interpolate":
        drawing = interpolate(drawing, value)
    elif tool == "cut":
        ends = [_voxel(body.get(name), drawing) for name in ("from", "to")]
        drawing = cut(drawing, spacing, value, ends[0], ends[1], fresh)
    else:
        raise UsageError("there is no such tool.")
    return {"drawing": embedded.packed(drawing.tobytes()), "value": value}


def _whole(value: Any) -> int:
    try:
        return int(value or 0)
    except (TypeError, ValueError) as error:
        raise UsageError("a number was expected.") from error


def _value(value: Any) -> int:
    number = _whole(value)
    if not 0 <= number <= PRIMARY:
        raise UsageError("a drawing cannot contain this value.")
    return number


def _voxel(value: Any, drawing: Drawing) -> tuple[int, int, int]:
    """A voxel (x, y, z) of a request as an index (z, y, x) of the drawing."""
    if not isinstance(value, list) or len(value) != 3:
        raise UsageError("a voxel was expected.")
    x, y, z = (_whole(v) for v in value)
    if not all(0 <= at < n for at, n in zip((z, y, x), drawing.shape, strict=True)):
        raise UsageError("the voxel is outside the picture.")
    return z, y, x


def _state(review: Review, opened: Opened) -> dict[str, Any]:
    result, scene = opened.result, opened.scene
    hidden = review.blind
    labels = scene.labels
    if hidden and opened.version is None:
        result = replace(result, nodes=(), warnings=())
        labels = labels.with_array(np.zeros_like(labels.array))
    shown, rule = about(scene, result), review.run.rule
    numbers = {node.value: node for node in result.nodes}
    for node in shown["nodes"]:
        own = numbers[node["value"]]
        node |= {
            "ene": None if hidden else probability_text(own.ene, (rule.ene_threshold,), missing="–"),
            "pos": None if hidden else probability_text(own.pos, (rule.pos_from,), missing="–"),
            "mm3": own.native_volume_mm3,
            "long": own.native_long_axis_mm,
            "short_axis": own.native_short_axis_mm,
            "side": own.side,
        }
        if hidden:
            node |= {"kind": "unknown", "short": str(own.value)}
    group = review.group(result)
    history = review.store.history(result.case_id)
    return {
        **shown,
        "id": result.case_id,
        "base": opened.number,
        "status": opened.version.status if opened.version else "to do",
        "count": None if hidden else result.n_ai_ene,
        "group": None if group is None else asdict(group),
        "warnings": list(result.warnings),
        "blind": hidden,
        "size": list(scene.grid.size[::-1]),
        "labels": embedded.packed(nifti_bytes(labels)),
        "versions": [
            {"number": v.number, "time": v.time, "status": v.status, "reason": v.reason, "edited": v.edited}
            for v in history
        ],
    }


def _case_page(review: Review, case_id: str) -> str:
    opened = review.open(case_id)
    if opened.scene.ct is None:
        raise UsageError("a case cannot be corrected without its CT.")
    rows = review.work_list()
    waiting = [row["id"] for row in rows if row["status"] == "to do" and row["id"] != case_id]
    return embedded.page(
        "review.html.j2",
        review.run.maker.notice,
        _SCRIPTS,
        ("review.css",),
        connect="'self'",
        case_id=case_id,
        reader=review.store.reader,
        blind=review.blind,
        next=f"/case/{quote(waiting[0], safe='')}" if waiting else "",
        state=embedded.as_json(
            {**_state(review, opened), "run": f"{review.run.maker.started}{review.store.reader}"}
        ),
        ct=embedded.packed(nifti_bytes(opened.scene.ct)),
    )


def _list_page(review: Review) -> str:
    rows = [{**row, "href": f"/case/{quote(str(row['id']), safe='')}"} for row in review.work_list()]
    return embedded.page(
        "worklist.html.j2",
        review.run.maker.notice,
        (),
        ("review.css",),
        rows=rows,
        reader=review.store.reader,
        blind=review.blind,
        counts={
            s: sum(row["status"] == s for row in rows)
            for s in ("to do", "accepted", "corrected", "set aside")
        },
    )
