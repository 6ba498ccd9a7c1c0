"""What a run calls its cases: by their own names, or by pseudonyms wherever results and messages are shown.

The road itself works with true names, since masks and files are found by them; they are taken out where a
result, a table, a note or a message leaves it.
"""

from __future__ import annotations

import hmac
import os
import re
import stat
import uuid
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from aiene.errors import AieneError, InputError, Name, OutputError, ProblemsError, Said, UsageError, visible
from aiene.ingest.case import Case, Refusal
from aiene.ingest.formats import formats
from aiene.ingest.input_list import is_input_list, listed_names
from aiene.results.records import CaseResult, Person

# Pseudonyms: the keyed hash that stands in a run's results where a patient's own name would.
#
# HMAC-SHA256 (RFC 2104) under the user's own key. The same key gives the same pseudonym in every run, so
# tables
# of several runs can be joined; without the key nobody can compute or check one. The key is never stored, and
# nothing here takes a pseudonym back: whoever holds key and names makes the table again (`aiene pseudonyms`).


MIN_BYTES: Final = 16
_MAX_BYTES: Final = 1 << 20
_MIN_DIFFERENT: Final = 8
_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: none looks like another
_LENGTH: Final = 10


@dataclass(frozen=True)
class Key:
    """The secret of the pseudonyms' owner.

    Parameters
    ----------
    secret : at least 16 bytes; in no repr, record or message.
    """

    secret: bytes = field(repr=False)

    def pseudonym(self, case_id: str) -> str:
        """A case id's pseudonym: `P-` and ten letters and digits (50 bits)."""
        return f"P-{self._short('case', case_id)}"

    def label(self, kind: str, text: str) -> str:
        """What stands for another text, such as a path: its kind, and ten letters and digits."""
        return f"{kind}-{self._short(kind, text)}"

    def uid(self, uid: str) -> str:
        """What stands for a DICOM UID: a UUID-derived UID under 2.25 (PS3.5 B.2)."""
        return f"2.25.{uuid.UUID(bytes=self._digest('uid', uid)[:16], version=4).int}"

    def check_value(self) -> str:
        """Tells one key from another in a record, without giving it away."""
        return self._digest("check", "").hex()[:16]

    def keyed(self, text: str) -> str:
        """64 hexadecimal digits for a text that could be guessed from its plain hash."""
        return self._digest("text", text).hex()

    def _short(self, kind: str, text: str) -> str:
        number = int.from_bytes(self._digest(kind, text)[:8], "big")
        return "".join(_LETTERS[number >> 5 * place & 31] for place in range(_LENGTH))

    def _digest(self, kind: str, text: str) -> bytes:
        message = f"{kind}\0".encode() + text.encode("utf-8", "surrogateescape")
        return hmac.digest(self.secret, message, "sha256")


def read_key(file: Path) -> tuple[Key, tuple[str, ...]]:
    """The key in a file, and what its owner should look at.

    Line ends at the end of the file do not count, since editors add them.

    Raises
    ------
    InputError : there is no such file, it cannot be read, or what it holds is no key.
    """
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "not a file that stays the same"
            raise InputError(file, f"the key must be a file, but this is {what}", "name the file of the key")
        if status.st_size > _MAX_BYTES:
            raise InputError(file, "it is too large to be a key (over 1 MiB)", "name the file of the key")
        secret = file.read_bytes().rstrip(b"\r\n")
    except FileNotFoundError as error:
        raise InputError(
            file,
            "there is no such key file",
            f"name one, or make it with `head -c 32 /dev/urandom > {file.name}`",
        ) from error
    except OSError as error:
        raise InputError(
            file, f"the key cannot be read ({error.strerror})", "check its permissions"
        ) from error
    if len(secret) < MIN_BYTES or len(set(secret)) < _MIN_DIFFERENT:
        fault = (
            f"a key has at least {MIN_BYTES} bytes, this has {len(secret)}"
            if len(secret) < MIN_BYTES
            else f"a key has at least {_MIN_DIFFERENT} different bytes, this has {len(set(secret))}"
        )
        raise InputError(file, fault, "make one with `head -c 32 /dev/urandom`")
    return Key(secret), _open_to_others(file, status)


def all_pseudonyms(key: Key, case_ids: Iterable[str]) -> dict[str, str]:
    """Each case id with its pseudonym, in the order given.

    Raises
    ------
    UsageError : two ids have the same pseudonym; a matter of chance (50 bits), which another key ends.
    """
    table: dict[str, str] = {}
    owner: dict[str, str] = {}
    for case_id in case_ids:
        name = key.pseudonym(case_id)
        if owner.setdefault(name, case_id) != case_id:
            raise UsageError(f"two cases would both be called {name}; use another key.")
        table[case_id] = name
    return table


def _open_to_others(file: Path, status: os.stat_result) -> tuple[str, ...]:
    if os.name != "posix" or not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ()
    return (f"{file.name}: other users of this machine can read the key; close it with chmod 600",)


_WORD: Final = re.compile(r"[\w.^~@#+=$%-]+")
_UID: Final = re.compile(r"\d+(\.\d+){3,}|2\.25\.\d+")
_COMMON: Final = {
    "ct", "mr", "pt", "dicom", "dicomdir", "nifti", "nrrd", "series", "study", "studies", "image", "images",
    "data", "input", "mask", "masks", "slice", "slices", "scan", "scans", "head", "neck", "patient", "case",
    "patients", "cases", "file", "files", "folder", "folders", "primary", "axial", "left", "right",
    "the", "it", "is", "no", "not", "of", "in", "on", "and", "or", "a", "to", "as", "by", "at", "its", "for",
}  # fmt: skip
"""Names that say nothing of a person and stand in our own sentences: replaced before a colon only."""


class Plain:
    """Every case by its own name, every text as it is."""

    def settings(self, record: dict[str, Any]) -> dict[str, Any]:
        """The run's settings for its record."""
        return record

    def uid(self, uid: str | None) -> str | None:
        """A DICOM UID."""
        return uid

    def cases(self, found: Sequence[Case | Refusal]) -> list[Case | Refusal]:
        """Learn what the cases are called; they come back in the order in which they are to be worked on."""
        return list(found)

    def name(self, case_id: str) -> str:
        """What a case is called where it is shown."""
        return case_id

    def person(self, case: Case | Refusal) -> Person:
        """Whose CT a case is, as it may be shown."""
        return Person(self.name(case.case_id), case.patient, case.date, case.counts)

    def identity(self, identity: str) -> str:
        """A hash of an input."""
        return identity

    def texts(self, texts: Iterable[str]) -> list[str]:
        """Notes of the run."""
        return [self.text(text) for text in texts]

    def text(self, text: str) -> str:
        """A sentence as it may be shown: no character in it does anything to a screen."""
        return visible(text)

    def source(self, source: str) -> str:
        """Where an input lies, as it may be shown."""
        return visible(source)

    def result(self, result: CaseResult) -> CaseResult:
        """A result as it may be shown."""
        return replace(
            result,
            source=self.source(result.source),
            reason=self.text(result.reason),
            warnings=tuple(self.text(w) for w in result.warnings),
            notes=tuple(self.text(n) for n in result.notes),
        )

    def error(self, error: Exception) -> Exception:
        """An unforeseen error as it may be logged."""
        return error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors that are raised here may be shown."""
        yield


class Disguised(Plain):
    """Every case by its pseudonym, and no text with a name from the input.

    Parameters
    ----------
    key : of the pseudonyms.
    source, masks : the run's input and the folder of own masks; every name in them may be a person's.
    """

    def __init__(self, key: Key, source: Path, masks: Path | None) -> None:
        self._key = key
        self._ids: dict[str, str] = {}
        self._by_id: dict[str, str] = {}
        self._words: dict[str, str] = {}  # by the name's casefold
        self._odd: dict[str, dict[str, str]] = defaultdict(
            dict
        )  # names that are no word, by their longest one
        for root in (source, *(() if masks is None else (masks,))):
            for name in {root.name, root.resolve().name, *_names_below(root)}:
                self._hide(name, key.label("F", name))
        for name in listed_names(source) if is_input_list(source) else ():
            self._hide(name, key.label("F", name))

    def settings(self, record: dict[str, Any]) -> dict[str, Any]:
        """Paths and UIDs hashed, and what tells one key from another."""
        hidden = {
            name: self._key.label(name, record[name])
            for name in ("input", "masks")
            if record[name] is not None
        }
        check = {"pseudonyms": f"HMAC-SHA256, key check value {self._key.check_value()}"}
        return {**record, **hidden, "series": self.uid(record["series"]), **check}

    def uid(self, uid: str | None) -> str | None:
        """A UID under 2.25 that stands for it."""
        return None if uid is None else self._key.uid(uid)

    def cases(self, found: Sequence[Case | Refusal]) -> list[Case | Refusal]:
        """Ordered by pseudonym: the order of the input would give names away to whoever has a sorted list.

        Raises
        ------
        UsageError : two cases would have the same pseudonym.
        """
        self._ids = all_pseudonyms(self._key, [case.case_id for case in found])
        for case in found:
            if case.patient:
                self._hide(case.patient, self._key.pseudonym(case.patient))
            uids = [aside.series_uid for aside in case.aside]
            if isinstance(case, Case):
                uids += [] if case.series_uid is None else [case.series_uid]
                for path in (*case.files, *case.members):
                    for part in path.parts[-2:]:
                        if part.casefold() not in self._words:
                            self._hide(part, self._key.label("F", part))
            for uid in uids:
                self._hide(uid, self._key.uid(uid))
        self._by_id = {case_id.casefold(): pseudonym for case_id, pseudonym in self._ids.items()}
        for case_id, pseudonym in self._ids.items():
            self._hide(case_id, pseudonym)
        return sorted(found, key=lambda case: self._ids[case.case_id])

    def name(self, case_id: str) -> str:
        """Its pseudonym."""
        return self._ids[case_id]

    def person(self, case: Case | Refusal) -> Person:
        """By the patient's pseudonym, without a date."""
        patient = self._key.pseudonym(case.patient or case.case_id)
        return Person(self.name(case.case_id), patient, "", case.counts)

    def identity(self, identity: str) -> str:
        """Keyed, since names, sizes and times of files can be guessed."""
        return self._key.keyed(identity)

    def texts(self, texts: Iterable[str]) -> list[str]:
        """Without names, in an order that is not that of the input."""
        return sorted(super().texts(texts))

    def text(self, text: str) -> str:
        """A sentence without a name of the input, each told apart by its keyed hash.

        A sentence that knows its names (`errors.Said`) is rendered anew. What libraries and the operating
        system put into one is of unknown making, so every name that lies in the input is looked for there: a
        net, which no sentence of our readers needs (`tests/ingest/test_sentences.py`).
        """
        if isinstance(text, Said):
            return text.without_names(self._stand_in, self._scrubbed)
        return self._scrubbed(text)

    def source(self, source: str) -> str:
        """A label."""
        return self._key.label("F", source) if source else ""

    def _stand_in(self, name: Name) -> str:
        if name.kind == "uid":
            return self._key.uid(name.text)
        known = self._by_id if name.kind == "case" else self._words
        return known.get(name.text.casefold()) or self._key.label("F", name.text)

    def _scrubbed(self, text: str) -> str:
        hidden = visible(text)
        near = {name: by for word in _words_of(text) | {""} for name, by in self._odd.get(word, {}).items()}
        for name in sorted(near, key=len, reverse=True):
            hidden = _whole(name).sub(lambda _, by=near[name]: by, hidden)  # type: ignore[misc]
        return _WORD.sub(self._word, hidden)

    def result(self, result: CaseResult) -> CaseResult:
        """Under its pseudonym, every text and UID disguised; the hash of the content stays."""
        facts = dict(result.facts)
        if "input" in facts:
            facts["input"] = {
                **self._facts(facts["input"]),
                "kind": facts["input"]["kind"],
                "pseudonymised": True,
            }
        patient = self._key.pseudonym(result.patient or result.case_id)
        return replace(
            super().result(result), case_id=self.name(result.case_id), facts=facts, patient=patient, date=""
        )

    def error(self, error: Exception) -> Exception:
        """Its kind and the lines of code alone: its words, and those of its causes, may hold a path."""
        return RuntimeError(type(error).__name__).with_traceback(error.__traceback__)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Errors of the user's are raised again without names; those on results name only what we named."""
        try:
            yield
        except OutputError:
            raise
        except ProblemsError as error:
            raise ProblemsError([self.text(problem) for problem in error.problems]) from None
        except AieneError as error:
            raise UsageError(self.text(error.told)) from None

    def _hide(self, name: str, stand_in: str) -> None:
        if not name:
            return
        self._words[name.casefold()] = stand_in
        if not _WORD.fullmatch(name):
            self._odd[max(_words_of(name), key=len, default="")][name] = stand_in

    def _word(self, found: re.Match[str]) -> str:
        """What stands for one word of a text."""
        word, after = found.group(), found.string[found.end() : found.end() + 1]
        core = word.rstrip(".")
        stem, dot, ending = core.partition(".")
        if ending in _endings() and stem.casefold() in self._by_id:  # so that a mask's name can be read
            return f"{self._by_id[stem.casefold()]}{dot}{ending}{word[len(core) :]}"
        known = self._words.get(core.casefold())
        if known is None and not stem.isdigit():  # 3.0 is a number, whatever folder is called 3
            known = self._words.get(stem.casefold())
        if known is None:
            return self._key.uid(core) + word[len(core) :] if _UID.fullmatch(core) else word
        common = core.casefold() in _COMMON or (core.isdigit() and len(core) < 4)
        return word if common and after != ":" else known + word[len(core) :]

    def _facts(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._facts(inner, str(key)) for key, inner in value.items()}
        if name == "archives":
            return [self._key.label("F", str(inner)) for inner in value]
        if isinstance(value, list | tuple):
            return [self._facts(inner, name) for inner in value]
        if not isinstance(value, str):
            return value
        return self._key.uid(value) if name.endswith("_uid") else self.text(value)


@cache
def _endings() -> frozenset[str]:
    """Endings without their first dot that may stand after a pseudonym."""
    return frozenset(ending[1:] for entry in formats() for ending in entry.endings) | {"zip"}


def _words_of(text: str) -> set[str]:
    """The words of a text, whatever their case, without full stops at their ends."""
    return {word.rstrip(".").casefold() for word in _WORD.findall(text)} - {""}


def _whole(name: str) -> re.Pattern[str]:
    """Finds a name, but not within longer words."""
    before = r"(?<!\w)" if re.match(r"\w", name) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", name) else ""
    return re.compile(before + re.escape(name) + after, re.IGNORECASE)


def _names_below(root: Path) -> Iterator[str]:
    """The name of every folder and file, those in zip archives too; links are followed, each folder once."""
    if root.is_file():
        yield from _names_in(root)
    seen: set[str] = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from folders
        for file in files:
            yield file
            yield from _names_in(Path(folder) / file)


def _names_in(file: Path) -> Iterator[str]:
    if file.suffix.lower() != ".zip":
        return
    try:
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                yield from PurePosixPath(member).parts
    except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError):
        return
