"""Input and results in an object store by URL (`s3://BUCKET/PREFIX`, `gs://`, `az://`), through fsspec.

A run works on local files, so that its bytes are those of any other run: the objects of the input are brought
to a working folder, and what is there already is not brought again; each case's results go to the store as it
is done, tables and record once at the end. The working folder lies under `AIENE_WORK`, else in the user's
cache. After a run that came to its end it is removed; after one that was killed the same command goes on from
it, and on another machine from what lies in the store.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from aiene.errors import AieneError, InputError, MissingExtraError, OutputError, UsageError, need

WORK: Final = "AIENE_WORK"
_BY_OBSTORE: Final = ("s3", "gs", "az")
_SIDE_BY_SIDE: Final = 8
_SEND_EVERY_S: Final = 10.0
_NOTES: Final = (".aiene/written.jsonl",)
_ROOMS: Final = ".aiene/work/"
_OPENED: Final = ".aiene/opened"
_TAGS: Final = ("e_tag", "ETag", "etag", "md5Hash", "content_md5", "mtime", "created")
_SHORT_RETRY: Final = {"max_retries": 3, "retry_timeout": timedelta(seconds=20)}
_SPOKEN: Final = (
    (
        r"\b40[13]\b|AccessDenied|Forbidden|InvalidAccessKeyId|SignatureDoesNotMatch|Unauth|PermissionDenied"
        r"|[Cc]redential",
        "this account has no right to {verb} there",
        "check the credentials (S3: AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) and the rules of the bucket",
    ),
    (r"NoSuchBucket|NoSuchContainer|notFound", "there is no such bucket", "check the URL"),
    (
        r"error sending request|[Cc]onnect|dns|timed? ?out",
        "no object store answers",
        "check the network, and AWS_ENDPOINT_URL where the store is not Amazon's",
    ),
)


def is_url(words: str | os.PathLike[str]) -> bool:
    """Whether a place is named by URL."""
    return bool(re.match(r"[a-z][a-z0-9+.-]+://", str(words)))


class Object(NamedTuple):
    """One object.

    Parameters
    ----------
    size : bytes.
    stamp : nanoseconds; stands for its time of change. It is made of the store's tag of the content, so that
        it is the same on every machine, and another one for another content.
    """

    size: int
    stamp: int


class Place:
    """A prefix in an object store.

    Parameters
    ----------
    url : `s3://BUCKET/PREFIX`.

    Raises
    ------
    MissingExtraError : what reads such URLs is not installed.
    UsageError : no store is known by such URLs.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        fsspec = need("fsspec", extra="store", purpose="Reading and writing by URL")
        protocol = url.partition("://")[0]
        options: dict[str, Any] = {"auto_mkdir": True} if protocol == "file" else {}
        self._keys: dict[str, str] = {}
        self._errors: tuple[type[BaseException], ...] = (OSError, ValueError)
        if protocol in _BY_OBSTORE:
            need("obstore.fsspec", extra="store", purpose="Reading and writing by URL").register(protocol)
            options = {"retry_config": _SHORT_RETRY}
            self._errors += (need("obstore.exceptions", extra="store", purpose="URLs").BaseError,)
        try:
            self._fs, self._root = fsspec.core.url_to_fs(self.url, **options)
        except ImportError as error:
            raise MissingExtraError("Reading and writing by URL", protocol, "store") from error
        except self._errors as error:
            raise UsageError(
                f"{url}: no object store is known by such a URL; give s3://BUCKET/PREFIX."
            ) from error

    def objects(self) -> dict[str, Object]:
        """Every object below the prefix by its name there; the prefix itself, where it is one object.

        Raises
        ------
        InputError : it cannot be listed, or a name leads out of a folder.
        """
        try:
            found = self._fs.find(self._root, detail=True)
            if not found and self._fs.isfile(self._root):
                found = {self._root: self._fs.info(self._root)}
        except FileNotFoundError:
            found = {}
        except self._errors as error:
            self._refused(error, "read", InputError)
        told = {}
        for key, facts in found.items():
            name = key[len(self._root) :].lstrip("/") or key.rpartition("/")[2]
            if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                raise InputError(
                    self.url, f"the name of the object {name} leads out of a folder", "rename it"
                )
            if not key.endswith("/"):
                self._keys[name] = key
                told[name] = Object(int(facts["size"]), _stamp(facts))
        return told

    def bring(self, folder: Path) -> dict[str, Object]:
        """Bring every object that is not in a folder yet, eight at a time; what was found.

        Raises
        ------
        InputError : one cannot be read.
        OutputError : the folder cannot be written.
        """
        found = self.objects()
        wanted = [
            name for name, at in found.items() if not name.startswith(_ROOMS) and not _same(folder / name, at)
        ]
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            list(pool.map(lambda name: self._bring(name, folder / name, found[name]), wanted))
        return found

    def send(self, file: Path, name: str) -> None:
        """Put a file's content under a name.

        Raises
        ------
        OutputError : it cannot be.
        """
        self.put(name, file.read_bytes())

    def put(self, name: str, content: bytes) -> None:
        """Put some bytes under a name.

        Raises
        ------
        OutputError : they cannot be.
        """
        try:
            self._fs.pipe_file(f"{self._root}/{name}", content)
        except self._errors as error:
            self._refused(error, "write", OutputError)

    def remove(self, name: str) -> None:
        """Take an object away.

        Raises
        ------
        OutputError : it cannot be.
        """
        try:
            self._fs.rm_file(f"{self._root}/{name}")
        except FileNotFoundError:
            return
        except self._errors as error:
            self._refused(error, "write", OutputError)

    def _bring(self, name: str, file: Path, at: Object) -> None:
        half = file.with_name(f"{file.name}.half")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._fs.get_file(self._keys[name], str(half))
            os.utime(half, ns=(at.stamp, at.stamp))
            half.replace(file)
        except self._errors as error:
            half.unlink(missing_ok=True)
            self._refused(error, "read", InputError)

    def _refused(self, error: BaseException, verb: str, kind: type[InputError | OutputError]) -> NoReturn:
        """Tell in one sentence what a store refused."""
        for pattern, problem, remedy in _SPOKEN:
            if re.search(pattern, f"{type(error).__name__} {error}"):
                raise kind(self.url, problem.format(verb=verb), remedy) from error
        first = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise kind(self.url, f"the store refused to {verb} ({first})", "check the URL") from error


def _stamp(facts: dict[str, Any]) -> int:
    tag = "|".join(str(facts[key]) for key in _TAGS if facts.get(key) is not None)
    return 10**18 + int.from_bytes(hashlib.sha256(tag.encode()).digest()[:6], "big") * 1000


def _same(file: Path, at: Object) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (at.size, at.stamp)


class Results:
    """A local folder of results that go to a store.

    Parameters
    ----------
    place : where they go; None: they stay.
    folder : where the run writes.
    """

    def __init__(self, place: Place | None, folder: Path) -> None:
        self._place, self.folder = place, folder
        self._there: dict[str, Object] = {}
        self._waiting: list[str] = []
        self._sent: dict[str, int] = {}
        self._sent_at = time.monotonic()

    def open(self) -> None:
        """Bring what an earlier call has sent, and see whether anything can be written.

        Raises
        ------
        InputError, OutputError : the store refuses.
        """
        if self._place is not None:
            self._there = self._place.bring(self.folder)
            self._place.put(_OPENED, b"")
            self._sent = {
                name: (self.folder / name).stat().st_mtime_ns
                for name in self._there
                if (self.folder / name).is_file()
            }

    def done(self, case_id: str) -> None:
        """A case lies in the folder; it goes to the store with others, every some seconds."""
        self._waiting.append(case_id)
        if time.monotonic() - self._sent_at >= _SEND_EVERY_S:
            self.send_cases()

    def send_cases(self) -> None:
        """Send the cases that wait, after the notes that say that they are ours."""
        if self._place is None:
            return
        self._send(_NOTES)
        for case_id in self._waiting:
            files = sorted((self.folder / "cases" / case_id).glob("*"), key=lambda f: f.name == "case.json")
            self._send(file.relative_to(self.folder).as_posix() for file in files)
        self._waiting, self._sent_at = [], time.monotonic()

    def close(self) -> None:
        """Send everything that has changed, and take away there what the run took away here."""
        if self._place is None:
            return
        self.send_cases()
        here = [p.relative_to(self.folder).as_posix() for p in sorted(self.folder.rglob("*")) if p.is_file()]
        here = [name for name in here if not name.startswith(_ROOMS)]
        self._send(here)
        for name in self._there.keys() - set(here) - {_OPENED}:
            if not name.startswith(_ROOMS):
                self._place.remove(name)

    def _send(self, names: Any) -> None:
        for name in names:
            file = self.folder / name
            if self._place is not None and file.is_file() and self._sent.get(name) != file.stat().st_mtime_ns:
                self._sent[name] = file.stat().st_mtime_ns
                self._place.send(file, name)


@contextmanager
def at_home(source: str, out: str) -> Iterator[tuple[Path, Results]]:
    """Local places for a run whose input or results are named by URL; paths stay as they are.

    Yields
    ------
    Where the input lies, and where results go. When the context ends, these are in the store; the working
    folders are removed unless an error ended it.

    Raises
    ------
    InputError, OutputError : a store refuses, in one sentence.
    """
    works: list[Path] = []

    def work_of(url: str) -> Path:
        folder = _work_root() / hashlib.sha256(url.encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise OutputError(
                folder, f"no working folder can be made ({error.strerror})", f"set {WORK}"
            ) from error
        works.append(folder)
        return folder

    results = Results(Place(out), work_of(out.rstrip("/"))) if is_url(out) else Results(None, Path(out))
    results.open()
    here = Path(source)
    if is_url(source):
        place, here = Place(source), work_of(source.rstrip("/"))
        if not place.bring(here):
            raise InputError(source, "no object lies there", "check the bucket and the prefix")
    try:
        yield here, results
    except AieneError:
        results.close()  # what was done is not lost
        raise
    results.close()
    for folder in works:
        shutil.rmtree(folder, ignore_errors=True)


def _work_root() -> Path:
    if os.environ.get(WORK):
        return Path(os.environ[WORK])
    from platformdirs import user_cache_path

    return user_cache_path("aiene", appauthor=False) / "objects"
