"""Input and results in an object store by URL (`s3://BUCKET/PREFIX`, `gs://`, `az://`), through fsspec.

A run works on local files, so that its bytes are those of any other run. The search for cases needs the first
bytes of each object only, so no more is brought to a working folder at first, in files of the objects' full
size. The objects of a case are brought when its turn comes, a few cases ahead, and removed when it is done.
Each case's results go to the store as it is done, tables and record once at the end. The working folder lies
under `AIENE_WORK`, else in the user's cache. After a run that came to its end it is removed; after one that
was killed the same command goes on, on another machine from what lies in the store.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, Final, NamedTuple, TypeVar

from aiene.errors import (
    AieneError,
    InputError,
    MissingExtraError,
    OutputError,
    UsageError,
    first_line,
    library_reason,
    need,
    os_reason,
    ours,
    said,
)
from aiene.ingest.case import Case
from aiene.ingest.dicom.header import lies_in_head
from aiene.ingest.file_head import HEAD_BYTES, Head, read_head
from aiene.ingest.fingerprint import glance, seal, with_data
from aiene.ingest.formats import kind_of

Result = TypeVar("Result")

WORK: Final = "AIENE_WORK"
_SET_WORK: Final = f"set {WORK}"
_BY_OBSTORE: Final = ("s3", "gs", "az")
_SIDE_BY_SIDE: Final = 8
_CASES_AHEAD: Final = 2  # brought beyond those that are at work: bounds the disk
_HEADS: Final = (HEAD_BYTES // 4, HEAD_BYTES)
"""Bytes of an object that the search may need: a CT slice's header takes 2 to 20 kB."""
_VOXELS_ALONE: Final = (".img", ".img.gz", ".raw", ".raw.gz", ".zraw")
"""Endings of what a header beside it names: the search does not look into them."""
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
        "this account has no right to {} there",
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


class ObjectGoneError(InputError):
    """An object was removed or changed since it was listed; others need not be."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, "the object was removed or changed during the run", "run the same command again"
        )


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
            problem = said("{}: no object store is known by such a URL; give s3://BUCKET/PREFIX.", url)
            raise UsageError(problem) from error

    def objects(self) -> dict[str, Object]:
        """Every object below the prefix by its name there; the prefix itself, where it is one object.

        Raises
        ------
        InputError : it cannot be listed, or a name leads out of a folder.
        """
        found: dict[str, Any] = {}
        with self._asking(InputError), suppress(FileNotFoundError):
            found = self._fs.find(self._root, detail=True)
            if not found and self._fs.isfile(self._root):
                found = {self._root: self._fs.info(self._root)}
        told = {}
        for key, facts in found.items():
            name = key[len(self._root) :].lstrip("/") or key.rpartition("/")[2]
            if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                problem = said("the name of the object {} leads out of a folder", name)
                raise InputError(self.url, problem, "rename it")
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
            list(pool.map(lambda name: self.bring_one(name, folder / name, found[name]), wanted))
        return found

    def bring_one(self, name: str, file: Path, at: Object) -> None:
        """Bring one object of `objects`.

        Raises
        ------
        ObjectGoneError : it is not what it was any more.
        InputError : it cannot be read, or the file not be written.
        """
        half = file.with_name(f"{file.name}.half")
        try:
            with self._asking(InputError, name):
                file.parent.mkdir(parents=True, exist_ok=True)
                self._fs.get_file(self._keys[name], str(half))
                if half.stat().st_size != at.size:
                    raise ObjectGoneError(name)
                os.utime(half, ns=(at.stamp, at.stamp))
                half.replace(file)
        finally:
            half.unlink(missing_ok=True)

    def head(self, name: str, size: int) -> bytes:
        """The first bytes of an object.

        Raises
        ------
        InputError : it cannot be read.
        """
        with self._asking(InputError):
            content: bytes = self._fs.cat_file(self._keys[name], start=0, end=size)
        return content

    def put(self, name: str, content: bytes) -> None:
        """Put some bytes under a name.

        Raises
        ------
        OutputError : they cannot be.
        """
        with self._asking(OutputError):
            self._fs.pipe_file(f"{self._root}/{name}", content)

    def remove(self, name: str) -> None:
        """Take an object away.

        Raises
        ------
        OutputError : it cannot be.
        """
        with self._asking(OutputError), suppress(FileNotFoundError):
            self._fs.rm_file(f"{self._root}/{name}")

    @contextmanager
    def _asking(self, kind: type[InputError | OutputError], name: str = "") -> Iterator[None]:
        """What a store refuses, told in one sentence; an object of a name may have gone."""
        try:
            yield
        except self._errors as error:
            if name and _is_gone(error):
                raise ObjectGoneError(name) from error
            verb = ours("read" if kind is InputError else "write")
            for pattern, problem, remedy in _SPOKEN:
                if re.search(pattern, f"{type(error).__name__} {error}"):
                    raise kind(self.url, said(problem, *[verb] * problem.count("{}")), remedy) from error
            told = said("the store refused to {} ({})", verb, library_reason(error, first_line(error)[:200]))
            raise kind(self.url, told, "check the URL") from error


def _is_gone(error: BaseException) -> bool:
    missing = isinstance(error, FileNotFoundError) or type(error).__name__ == "NotFoundError"  # obstore's own
    return missing and "NoSuchBucket" not in str(error)


def _stamp(facts: dict[str, Any]) -> int:
    tag = "|".join(str(facts[key]) for key in _TAGS if facts.get(key) is not None)
    return 10**18 + int.from_bytes(hashlib.sha256(tag.encode()).digest()[:6], "big") * 1000


def _same(file: Path, at: Object) -> bool:
    try:
        status = file.stat()
    except OSError:
        return False
    return (status.st_size, status.st_mtime_ns) == (at.size, at.stamp)


class AtHand:
    """The files of a run's input where they lie on this machine."""

    url = ""

    def seal(self, files: Sequence[Path]) -> str:
        """See `fingerprint.seal`."""
        return seal(files)

    def each(self, cases: Sequence[Case]) -> Iterable[Case]:
        """Every case when its files are here."""
        return cases

    def checked(self, case: Case, work: Callable[[], Result]) -> Result:
        """The result of some work on a case."""
        return work()

    def briefly(self, case: Case, work: Callable[[], Result]) -> Result:
        """The same, before the cases' turns: its files are brought for this alone."""
        try:
            for _ in self.each([case]):
                pass
            return self.checked(case, work)
        finally:
            self.release(case)

    def release(self, case: Case) -> None:
        """Nothing is taken away."""


class Supply(AtHand):
    """The files of a run's input, brought from a store case by case.

    Parameters
    ----------
    place : where they lie.
    folder : where they are brought.
    """

    def __init__(self, place: Place, folder: Path) -> None:
        self.url = place.url
        self._place, self._folder, self._roots = place, folder, (folder, folder.resolve())
        self._objects: dict[str, Object] = {}
        self._heads: set[str] = set()
        self._wanted_by: Counter[str] = Counter()
        self._brought: dict[str, Future[None]] = {}
        self._lost: dict[str, ObjectGoneError] = {}

    def survey(self, *, whole: bool = False) -> None:
        """Bring what a search for cases needs of each object: its beginning, or all of it.

        Parameters
        ----------
        whole : bring everything now, and let it stay until the end.

        Raises
        ------
        InputError : there is nothing, or it cannot be read.
        OutputError : the folder cannot be written.
        """
        self._objects = self._place.objects()
        if not self._objects:
            raise InputError(self.url, "no object lies there", "check the bucket and the prefix")
        names = [name for name in self._objects if not name.startswith(_ROOMS)]
        with ThreadPoolExecutor(_SIDE_BY_SIDE) as pool:
            brief = list(pool.map(lambda name: self._bring_head(name, () if whole else _HEADS), names))
        self._heads = {name for name, is_brief in zip(names, brief, strict=True) if is_brief}

    def seal(self, files: Sequence[Path]) -> str:
        """Copies are new each time: the time of change of each, made of the store's tag, is its seal."""
        brought = all(any(map(file.is_relative_to, self._roots)) for file in files)
        return glance(files) if files and brought else seal(files)

    def each(self, cases: Sequence[Case]) -> Iterator[Case]:
        """Every case with its files whole; the next ones are brought meanwhile.

        Raises
        ------
        InputError : the store does not answer any more, or refuses.
        OutputError : the folder cannot be written.
        """
        for case in cases:
            self._wanted_by.update(self._names(case))
        coming: deque[tuple[Case, list[Future[None]]]] = deque()
        to_come = iter(cases)
        pool = ThreadPoolExecutor(_SIDE_BY_SIDE)

        def order(count: int) -> None:
            for case in islice(to_come, count):
                for name in self._names(case):
                    if name not in self._brought:  # by another case
                        self._brought[name] = pool.submit(self._bring_whole, name)
                coming.append((case, [self._brought[name] for name in self._names(case)]))

        try:
            order(_CASES_AHEAD + 1)
            while coming:
                case, futures = coming.popleft()
                for future in futures:
                    future.result()
                order(1)
                yield case
        finally:
            pool.shutdown(cancel_futures=True)

    def checked(self, case: Case, work: Callable[[], Result]) -> Result:
        """The result of some work on a case, where its files could be brought.

        Raises
        ------
        ObjectGoneError : an object of it went away or changed since the run began.
        """
        for name in self._names(case):
            if name in self._lost:
                raise self._lost[name]
        return work()

    def release(self, case: Case) -> None:
        """Remove the files of a case that no other case is waiting for."""
        for name in self._names(case):
            self._wanted_by[name] -= 1
            if self._wanted_by[name] <= 0:
                self._brought.pop(name, None)
                (self._folder / name).unlink(missing_ok=True)

    def _names(self, case: Case) -> list[str]:
        """The objects of a case that are not brought with the survey."""
        files = [*case.files, *([] if case.mask is None else [case.mask])]
        names = dict.fromkeys(
            file.relative_to(root).as_posix()
            for file in with_data(files)
            for root in self._roots
            if file.is_relative_to(root)
        )
        return [name for name in names if name in self._heads]

    def _bring_head(self, name: str, sizes: Sequence[int]) -> bool:
        """Bring the beginning of an object, in a file of its full size; False where it is brought whole."""
        at, file = self._objects[name], self._folder / name
        for size in sizes:
            if at.size <= size:
                break
            content = read_head(file).content[:size] if _same(file, at) else self._place.head(name, size)
            if _is_enough(name, Head(file, content, whole=False)):
                if not _same(file, at):
                    _write_sparse(file, content, at)
                return True
        if not _same(file, at):
            self._place.bring_one(name, file, at)
        return False

    def _bring_whole(self, name: str) -> None:
        try:
            self._place.bring_one(name, self._folder / name, self._objects[name])
        except ObjectGoneError as error:
            (self._folder / name).unlink(missing_ok=True)
            self._lost[name] = error


def _is_enough(name: str, head: Head) -> bool:
    """Whether the search for cases looks no further into an object than this."""
    if name.lower().endswith(_VOXELS_ALONE):
        return True
    kind = kind_of(head)
    return lies_in_head(head) if kind == "dicom" else kind is not None


def _write_sparse(file: Path, content: bytes, at: Object) -> None:
    half = file.with_name(f"{file.name}.half")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(content)
        os.truncate(half, at.size)
        os.utime(half, ns=(at.stamp, at.stamp))
        half.replace(file)
    except OSError as error:
        raise OutputError(file, said("it cannot be written ({})", os_reason(error)), _SET_WORK) from error


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
            here = {name: self.folder / name for name in self._there}
            self._sent = {name: file.stat().st_mtime_ns for name, file in here.items() if file.is_file()}

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
                self._place.put(name, file.read_bytes())


class Home(NamedTuple):
    """Local places for a run whose input or results are named by URL.

    Parameters
    ----------
    source : where the input lies.
    results : where results go.
    supply : brings the files of each case.
    """

    source: Path
    results: Results
    supply: AtHand


@contextmanager
def at_home(source: str, out: str, *, part: str = "", whole: bool = False) -> Iterator[Home]:
    """Local places for a run whose input or results are named by URL; paths stay as they are.

    Parameters
    ----------
    part : of the cohort, where several calls work on it side by side: each has a working folder of its own.
    whole : bring the whole input before the run, for what needs the CTs after it as well.

    Yields
    ------
    When the context ends, the results are in the store; the working folders are removed unless an error
    ended it.

    Raises
    ------
    InputError, OutputError : a store refuses, in one sentence.
    """
    works: list[Path] = []

    def work_of(*words: str) -> Path:
        folder = _work_root() / hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            told = said("no working folder can be made ({})", os_reason(error))
            raise OutputError(folder, told, _SET_WORK) from error
        works.append(folder)
        return folder

    results = Results(Place(out), work_of(out.rstrip("/"))) if is_url(out) else Results(None, Path(out))
    results.open()
    here, supply = Path(source), AtHand()
    if is_url(source):
        # Nobody else's: a run takes files away when it has done with them.
        place = Place(source)
        work = work_of(place.url, str(results.folder.resolve()), part, "whole" if whole else "")
        here = work / (PurePosixPath(place.url).name.strip(".") or "input")  # a CT alone is called after it
        supply = Supply(place, here)
        supply.survey(whole=whole)
    try:
        yield Home(here, results, supply)
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
