"""A real archive for tests: Debian's Orthanc with its DICOMweb plug-in, in a network of its own.

Orthanc 1.10 listens on all addresses whatever its configuration says. So the tests that use it move into a
new network namespace, in which there is nothing but loopback, and the archive with them.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest

PROGRAM = "/usr/sbin/Orthanc"
PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
DICOM_PORT, HTTP_PORT = 4242, 8042
OUR_PORT, ANSWER_PORT, PULL_PORT = 11112, 11113, 11114
_CLONE_NEWNET = 0x40000000


@contextmanager
def own_network() -> Iterator[None]:
    """This thread and what it starts in a network of loopback alone; skips where that cannot be."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        pytest.skip("a network namespace of its own needs root")
    libc = ctypes.CDLL(None, use_errno=True)
    with Path("/proc/thread-self/ns/net").open() as before:
        if libc.unshare(_CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace of its own: {os.strerror(ctypes.get_errno())}")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            yield
        finally:
            libc.setns(before.fileno(), _CLONE_NEWNET)


class Orthanc:
    """The archive, running; a context.

    Parameters
    ----------
    modalities : its DicomModalities: by name, AE title, host, port, and what they may do.
    """

    def __init__(self, folder: Path, *, scripts: Sequence[str] = (), **modalities: Any) -> None:
        if not shutil.which(PROGRAM) or not PLUGIN.exists():
            pytest.skip("Orthanc is not there (Debian: orthanc, orthanc-dicomweb)")
        folder.mkdir(parents=True, exist_ok=True)
        settings = {
            "Name": "tests",
            "StorageDirectory": str(folder / "db"),
            "IndexDirectory": str(folder / "db"),
            "Plugins": [str(PLUGIN)],
            "DicomAet": "ORTHANC",
            "DicomPort": DICOM_PORT,
            "HttpPort": HTTP_PORT,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowEcho": False,
            "DicomAlwaysAllowStore": False,
            "DicomAlwaysAllowFind": False,
            "DicomAlwaysAllowGet": False,
            "StableAge": 2,
            "LuaScripts": list(scripts),
            "DicomModalities": modalities,
            "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        }
        (folder / "orthanc.json").write_text(json.dumps(settings))
        self._log = (folder / "log.txt").open("wb")
        self._process = subprocess.Popen(
            [PROGRAM, str(folder / "orthanc.json")], stdout=self._log, stderr=subprocess.STDOUT
        )
        self.folder = folder

    def __enter__(self) -> Orthanc:
        for _ in range(600):
            assert self._process.poll() is None, (self.folder / "log.txt").read_text()[-2000:]
            try:
                self.get("system")
                return self
            except OSError:
                time.sleep(0.1)
        raise AssertionError((self.folder / "log.txt").read_text()[-2000:])

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()

    @property
    def peer(self) -> str:
        return f"ORTHANC@127.0.0.1:{DICOM_PORT}"

    @property
    def web(self) -> str:
        return f"http://127.0.0.1:{HTTP_PORT}/dicom-web"

    def raw(self, path: str, body: bytes | None = None, method: str | None = None) -> bytes:
        request = urllib.request.Request(f"http://127.0.0.1:{HTTP_PORT}/{path}", data=body, method=method)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=60) as answer:
            return bytes(answer.read())

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def store(self, files: list[Path]) -> None:
        for file in files:
            self.raw("instances", file.read_bytes())

    def clear(self) -> None:
        for patient in self.get("patients"):
            self.raw(f"patients/{patient}", method="DELETE")

    def stored(self) -> int:
        """How many instances it has taken since it was started."""
        changes = self.get("changes?limit=100000")["Changes"]
        return sum(change["ChangeType"] == "NewInstance" for change in changes)

    def objects(self, study_uid: str) -> dict[str, list[pydicom.Dataset]]:
        """What lies under a study, by modality."""
        found: dict[str, list[pydicom.Dataset]] = {}
        for study in self.get("studies"):
            if self.get(f"studies/{study}")["MainDicomTags"]["StudyInstanceUID"] != study_uid:
                continue
            for instance in self.get(f"studies/{study}/instances"):
                content = self.raw(f"instances/{instance['ID']}/file")
                dataset = pydicom.dcmread(BytesIO(content))
                found.setdefault(str(dataset.Modality), []).append(dataset)
        return found
