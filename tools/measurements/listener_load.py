"""The listener under load, and how soon its objects are in an archive; as root, with Debian's Orthanc.

    PYTHONPATH=src:tests python -m tools.measurements.listener_load [--series 50] [--echoes 1000] [--out FILE]

Receiving: 50 series of 24 images by four associations at once, while one caller says nothing and another has
stopped in the middle of a message; then 1,000 associations by a wrong AE title; the memory of the listener's
process before, between and after. Sending: study after study to the listener, planted nodes in place of the
networks, and the seconds from the confirmation of the last image to SEG, SR and RTSTRUCT in the archive.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

_CALLERS = 4
_SETTLE_S = 0.5
_KINDS = {"SEG", "SR", "RTSTRUCT"}


def main() -> None:
    """Load, count, tell."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--series", type=int, default=50)
    parser.add_argument("--echoes", type=int, default=1000)
    parser.add_argument("--studies", type=int, default=5)
    parser.add_argument("--out", type=Path)
    words = parser.parse_args()
    orthanc = import_module("builders.orthanc")
    with tempfile.TemporaryDirectory() as name, orthanc.own_network():
        result = received(Path(name), words.series, words.echoes)
        known = {"aiene": ["AIENE", "127.0.0.1", orthanc.OUR_PORT]}
        with orthanc.Orthanc(Path(name) / "orthanc", **known) as archive:
            result |= sent_back(Path(name), archive, words.studies)
    result["load_average"] = round(psutil.getloadavg()[0], 1)
    print(json.dumps(result, indent=2))
    if words.out is not None:
        words.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def received(folder: Path, count: int, echoes: int) -> dict[str, Any]:
    """Series at once, callers that hang, and callers by a wrong title."""
    site, kills = import_module("builders.pacs_site"), import_module("builders.pacs_kills")
    series = [site.oblique_series(folder / f"ct{n}", f"load{n}") for n in range(count)]
    settings = site.settings_for(folder / "store", listen={"network_timeout_s": 5}, settle_s=_SETTLE_S)
    listener = kills.Listener(folder, settings, "no_work")
    listener.start()
    process, megabytes = psutil.Process(listener.process_id), []
    try:
        site.send(series[0])  # what is made once is made
        megabytes.append(_megabytes(process))
        hanging = [socket.create_connection(("127.0.0.1", 11112)) for _ in range(2)]
        hanging[1].sendall(b"\x01\x00\x00\x00\x10\x00")
        start, used = time.perf_counter(), _used(process)
        with ThreadPoolExecutor(_CALLERS) as callers:
            said = [status for part in callers.map(site.send, series) for status in part]
        seconds = time.perf_counter() - start
        used = _used(process) - used
        megabytes.append(_megabytes(process))
        request, start = _request_by_a_wrong_title(), time.perf_counter()
        with ThreadPoolExecutor(_CALLERS) as callers:
            refused = sum(callers.map(_is_refused, [request] * echoes))
        refusing = time.perf_counter() - start
        megabytes.append(_megabytes(process))
        for one in hanging:
            one.close()
        site.until(
            lambda: [s for s in kills._states(settings).values() if s == "sent"] == ["sent"] * count,
            "the end",
            300,
        )
        images = {study.images for study in kills._studies(settings)}
    finally:
        listener.kill()
    return {
        "series": count,
        "images_a_series": sorted(images),
        "associations_at_once": _CALLERS,
        "images_confirmed": said.count(0),
        "images_refused": len(said) - said.count(0),
        "series_a_minute": round(60 * count / seconds),
        "processor_seconds_a_series": round(used / count, 3),
        "wrong_titles": echoes,
        "wrong_titles_refused": refused,
        "refused_a_second": round(echoes / refusing),
        "listener_megabytes_before_between_after": megabytes,
    }


def _request_by_a_wrong_title() -> bytes:
    """An A-ASSOCIATE-RQ as pynetdicom writes it; sent as bytes, so that the listener alone is timed."""
    site = import_module("builders.pacs_site")

    def call(port: int) -> None:
        with site.calling("CT1", called="OTHER", port=port):
            pass

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor(1) as caller:
        caller.submit(call, server.getsockname()[1])
        with server.accept()[0] as taken:
            return taken.recv(1 << 16)


def _is_refused(request: bytes) -> bool:
    """Whether the listener answers with an A-ASSOCIATE-RJ."""
    with socket.create_connection(("127.0.0.1", 11112), timeout=60) as link:
        link.sendall(request)
        return link.recv(1 << 16)[:1] == b"\x03"


def sent_back(folder: Path, archive: Any, count: int) -> dict[str, Any]:
    """Seconds from the last image's confirmation to the last object in the archive."""
    site, kills = import_module("builders.pacs_site"), import_module("builders.pacs_kills")
    peers: dict[str, Any] = {"archive": {"ae_title": "ORTHANC", "port": 4242}}
    settings = site.settings_for(folder / "back", send_to=["archive"], peers=peers, settle_s=_SETTLE_S)
    series = [site.oblique_series(folder / f"back{n}", f"back{n}") for n in range(count)]
    listener, seconds = kills.Listener(folder, settings), []
    listener.start()
    try:
        for files in series:
            seconds.append(_until_back(site, archive, files))
    finally:
        listener.kill()
    return {
        "studies_sent_back": count,
        "settle_s": _SETTLE_S,
        "seconds_to_the_archive_first": round(seconds[0], 1),  # the process of the work is started for it
        "seconds_to_the_archive_median": round(statistics.median(seconds[1:]), 1),
    }


def _until_back(site: Any, archive: Any, files: Sequence[Path]) -> float:
    assert set(site.send(files)) == {0}
    start, uid = time.perf_counter(), site.uid_of_study(files)
    site.until(lambda: set(archive.objects(uid)) >= _KINDS, "the objects", 300)
    return time.perf_counter() - start


def _megabytes(process: psutil.Process) -> int:
    return int(process.memory_info().rss // 1_000_000)


def _used(process: psutil.Process) -> float:
    return float(sum(process.cpu_times()[:2]))


if __name__ == "__main__":
    main()
