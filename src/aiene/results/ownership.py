"""What in a folder is ours: noted before it is written, so that nothing else is ever replaced or removed.

Two rules keep a user's files safe, whatever they are called:

- results never lie among inputs (`refuse_overlap`);
- a file is ours where its content is what we noted that we would write under its name. Everything else, a
  table of the user's or one of ours that was edited since, is in the way, and a sentence says so.

The notes lie in the folder itself (`.aiene/written.jsonl`, one line a file). They are only ever added to, so
that several processes can write into one folder, and a process that is killed loses none.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from aiene.errors import Name, OutputError, UsageError, file_name, ours, said
from aiene.hashing import disk_place, file_sha256
from aiene.results.atomic import json_bytes, locked, make_folder, read_json, write_bytes, write_json, writing

MARKER: Final = ".aiene"
"""Our own folder in every folder that a command fills."""

_NOTES: Final = "written.jsonl"
_WHOLE: Final = "all"  # stands for a hash: everything in this folder is ours
_NOT_OURS: Final = "the file there was not written by aiene, or was changed since"
_MOVE_OR_NAME: Final = "move it away, or choose another name with -o"
_MOVE: Final = "move it away, or choose another folder with -o"


class Owned:
    """A folder that a command fills.

    Parameters
    ----------
    root : the folder; it need not be there yet.
    half : folder on the same file system for files while they are written; None is that of each file.
    """

    def __init__(self, root: Path, half: Path | None = None) -> None:
        self.root, self.half = root, half
        self._hashes: dict[str, set[str]] = defaultdict(set)
        self._read = 0

    @property
    def marker(self) -> Path:
        """The folder of our notes."""
        return self.root / MARKER

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Alone among the processes that fill this folder; may not be nested.

        Raises
        ------
        OutputError : the lock cannot be written.
        """
        self._make_marker()
        with ExitStack() as held:
            with writing(self.root):
                held.enter_context(locked(self.marker / "lock"))
            yield

    def owns(self, path: Path) -> bool:
        """Whether a file is what we wrote; nothing that a link leads to is."""
        if self._behind_a_link(path) or not path.is_file():
            return False
        hashes = self._noted()
        name = self._name(path)
        if any(_WHOLE in hashes.get(f"{above}/", ()) for above in Path(name).parents):
            return True
        try:
            return name in hashes and file_sha256(path) in hashes[name]
        except OSError:
            return False

    def knows(self, folder: Path) -> bool:
        """Whether we ever wrote into a folder below the root."""
        start = f"{self._name(folder)}/"
        return any(name.startswith(start) for name in self._noted())

    def wrote(self, path: Path) -> bool:
        """Whether we ever wrote a file of this name, though it may have been changed since."""
        return not self._behind_a_link(path) and self._name(path) in self._noted()

    def is_in_the_way(self, path: Path) -> bool:
        """Whether something lies where a file is to be written, and is not ours."""
        return self._behind_a_link(path) or (os.path.lexists(path) and not self.owns(path))

    def check(self, *names: str) -> None:
        """Refuse to begin where one of the names to be written is taken.

        Parameters
        ----------
        names : of files, relative to the root.

        Raises
        ------
        UsageError : the first of them that is in the way.
        """
        for name in names:
            if self.is_in_the_way(self.root / name):
                raise UsageError(
                    said("{} in {}: {}; {}.", ours(name), _shown(self.root), ours(_NOT_OURS), ours(_MOVE))
                )

    def claim(self, name: str) -> None:
        """Take a whole folder below the root as ours, with all that is in it and will be.

        Raises
        ------
        UsageError : it holds something already, and was not ours before.
        OutputError : it cannot be made.
        """
        folder = self.root / name
        claimed = _WHOLE in self._noted().get(f"{name}/", ())
        empty = not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))
        if self._behind_a_link(folder) or not (claimed or empty):
            template = "{} in {}: the folder there was not made by aiene; {}."
            raise UsageError(said(template, ours(name), _shown(self.root), ours(_MOVE)))
        if not claimed:
            self._note({f"{name}/": _WHOLE})
        make_folder(folder)

    def write(self, path: Path, content: bytes, *, private: bool = False, over_changed: bool = False) -> None:
        """Write a file whole, where nothing of another's lies.

        Parameters
        ----------
        private : for its owner's eyes alone (0600).
        over_changed : also over a file that we wrote and that was changed since; only where the user said so.

        Raises
        ------
        OutputError : something else is in the way, or it cannot be written.
        """
        if not (over_changed and self.wrote(path)):
            self.refuse(path)
        self._note({self._name(path): hashlib.sha256(content).hexdigest()})
        write_bytes(path, content, private=private, half=self.half)

    def write_json(self, path: Path, content: Mapping[str, Any]) -> None:
        """Write JSON as `atomic.write_json` does, where nothing of another's lies.

        Raises
        ------
        OutputError : as `write`.
        """
        self.write(path, json_bytes(content))

    def refuse(self, path: Path) -> None:
        """Refuse a path where something lies that is not ours.

        Raises
        ------
        OutputError : so it is.
        """
        if self.is_in_the_way(path):
            raise OutputError(path, _NOT_OURS, _MOVE)

    def put(self, made: Path, target: Path, *, last: str) -> None:
        """Put a folder that is complete in the place of one of ours.

        What others laid into the old one stays where it is; without such, the new one appears as a whole.

        Parameters
        ----------
        made : the complete folder, on the same file system; it is gone afterwards.
        target : its place below the root.
        last : the file whose being there says that the folder is complete.

        Raises
        ------
        OutputError : a file of another's is in the way, or it cannot be put there.
        """
        new = sorted(p for p in made.rglob("*") if p.is_file())
        for file in new:
            self.refuse(target / file.relative_to(made))
        with writing(target):
            self._note({self._name(target / p.relative_to(made)): file_sha256(p) for p in new})
            if os.path.lexists(target):
                self.remove(target / last)
                self.clear(target)
            if not os.path.lexists(target):
                made.rename(target)
                return
            for file in sorted(new, key=lambda p: p.name == last):
                place = target / file.relative_to(made)
                place.parent.mkdir(parents=True, exist_ok=True)
                file.rename(place)

    def remove(self, path: Path) -> None:
        """Remove a file if it is ours.

        Raises
        ------
        OutputError : it cannot be removed.
        """
        if self.owns(path):
            with writing(path):
                path.unlink(missing_ok=True)

    def clear(self, folder: Path | None = None) -> None:
        """Remove what is ours below a folder (the root if None), and the folders that this leaves empty.

        Raises
        ------
        OutputError : something cannot be removed.
        """
        top = self.root if folder is None else folder
        start = "" if folder is None else f"{self._name(folder)}/"
        names = [name for name in self._noted() if name.startswith(start)]
        emptied: set[Path] = set()
        for name in names:
            for file in _files(self.root / name) if name.endswith("/") else [self.root / name]:
                if self.owns(file):
                    self.remove(file)
                    emptied.update(p for p in file.parents if p == top or top in p.parents)
        for path in sorted(emptied - {self.root}, key=lambda p: len(p.parts), reverse=True):
            with suppress(OSError):
                path.rmdir()  # only where nothing else is in it

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def _behind_a_link(self, path: Path) -> bool:
        between = [p for p in (path, *path.parents) if p != self.root and self.root in p.parents]
        return any(p.is_symlink() for p in between)

    def _make_marker(self) -> None:
        if self.marker.is_symlink():
            raise UsageError(said("{} in {} is a link; {}.", ours(MARKER), _shown(self.root), ours(_MOVE)))
        make_folder(self.root)
        with writing(self.root):
            self.marker.mkdir(mode=0o700, exist_ok=True)

    def _noted(self) -> Mapping[str, set[str]]:
        """Every name that was noted with the hashes that it may have; what others added meanwhile is read."""
        try:
            with (self.marker / _NOTES).open("rb") as stream:
                stream.seek(self._read)
                added = stream.read()
        except OSError:
            return self._hashes
        self._read += len(added)
        for line in added.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # a line that a killed process left half
                entry = json.loads(line)
                self._hashes[entry["path"]].add(entry["sha256"])
        return self._hashes

    def _note(self, hashes: Mapping[str, str]) -> None:
        noted = self._noted()
        lines = [
            json.dumps({"path": name, "sha256": sha256})
            for name, sha256 in hashes.items()
            if sha256 not in noted.get(name, ())
        ]
        if not lines:
            return
        self._make_marker()
        notes = self.marker / _NOTES
        with writing(notes), locked(notes), notes.open("ab") as stream:
            stream.write("".join(f"\n{line}\n" for line in lines).encode())  # a half line before stays apart
            stream.flush()
            os.fsync(stream.fileno())


def write_with_record(path: Path, content: bytes, record: Mapping[str, Any]) -> Path:
    """Write a single file, and beside it `NAME.json`, which tells how it was made and is our mark on both.

    Parameters
    ----------
    path : the file; its folder is made.
    record : JSON values; the file's hash is added as `file`.

    Returns
    -------
    The record's path.

    Raises
    ------
    OutputError : a file that we did not write, or that was changed since, lies in either place; or they
        cannot be written.
    """
    beside = path.with_suffix(".json")
    before = _record_at(beside)
    if os.path.lexists(beside) and before is None:
        raise OutputError(beside, _NOT_OURS, _MOVE_OR_NAME)
    if os.path.lexists(path) and not _is_of_record(path, before):
        raise OutputError(path, _NOT_OURS, _MOVE_OR_NAME)
    make_folder(path.parent)
    mark = {"name": path.name, "sha256": hashlib.sha256(content).hexdigest()}
    if (
        before is not None
    ):  # both hashes while the file is exchanged, so that it is ours whenever we are stopped
        write_json(beside, {**record, "file": {**mark, "replaces": before["file"]["sha256"]}})
        write_bytes(path, content)
    write_json(beside, {**record, "file": mark})
    if before is None:
        write_bytes(path, content)
    return beside


def _record_at(path: Path) -> dict[str, Any] | None:
    """A record that `write_with_record` left; None for anything else."""
    content = read_json(path) or {}
    mark = content.get("file")
    marked = isinstance(mark, dict) and all(isinstance(mark.get(key), str) for key in ("name", "sha256"))
    return content if marked else None


def _is_of_record(path: Path, record: dict[str, Any] | None) -> bool:
    if record is None or path.is_symlink() or not path.is_file() or record["file"]["name"] != path.name:
        return False
    return file_sha256(path) in (record["file"]["sha256"], record["file"].get("replaces"))


def refuse_unless(path: Path, is_ours: Callable[[bytes], bool]) -> None:
    """Refuse to write over a file whose content does not say that it is ours.

    Raises
    ------
    OutputError : so it is.
    """
    if not os.path.lexists(path):
        return
    try:
        ours = is_ours(path.read_bytes())
    except OSError:
        ours = False
    if not ours:
        raise OutputError(path, _NOT_OURS, _MOVE_OR_NAME)


def refuse_overlap(out: Path, inputs: Mapping[str, Path | None]) -> None:
    """Refuse a folder for results that is, holds, or lies in what is read; links are followed.

    Parameters
    ----------
    out : the folder for the results; it need not be there yet.
    inputs : files and folders by what they are called on the command line.

    Raises
    ------
    UsageError : the first that overlaps.
    """
    for what, path in inputs.items():
        if path is None:
            continue
        how = _overlap(out, path)
        if how:
            raise UsageError(
                said(
                    "the folder for the results ({}) {} {} ({}), whose files "
                    "could be taken for results or replaced; choose a folder beside it with -o.",
                    _shown(out),
                    ours(how),
                    ours(what),
                    _shown(path),
                )
            )


def refuse_files_within(out: Path, files: Iterable[Path], what: str) -> None:
    """Refuse a folder for results in which an input lies, wherever a link to it was found.

    Raises
    ------
    UsageError : the first such file.
    """
    looked: dict[Path, bool] = {}
    for file in files:
        folder = Path(os.path.realpath(file)).parent if file.is_symlink() else file.parent
        if folder not in looked:
            looked[folder] = is_within(folder, out)
        if looked[folder]:
            template = "{}, {}, is in the folder for the results ({}); choose another with -o."
            raise UsageError(said(template, file_name(file), ours(what), _shown(out)))


def is_within(path: Path, folder: Path) -> bool:
    """Whether a path is or lies in a folder, as the file system sees it, whatever links and `..` say."""
    there = _identity(folder)
    if there is None:
        return False
    real = Path(os.path.realpath(path))
    return any(_identity(p) == there for p in (real, *real.parents))


def _overlap(out: Path, path: Path) -> str:
    if is_within(out, path):
        return "is" if is_within(path, out) else "lies in"
    return "holds" if is_within(path, out) else ""


def _identity(path: Path) -> tuple[int, int | str] | None:
    try:
        return disk_place(path)
    except OSError:
        return None


def _files(folder: Path) -> Iterator[Path]:
    for here, folders, files in os.walk(folder):
        folders[:] = [f for f in folders if not (Path(here) / f).is_symlink()]
        yield from (Path(here) / f for f in files)


def _shown(path: Path) -> Name:
    """The last name of a path: those above may name a patient."""
    return Name("file", path.name or path.resolve().name or str(path))
