"""What a run calls its cases: by their own names, or by pseudonyms wherever results and messages are shown.

The road itself works with true names, since masks and files are found by them; they are taken out where a
result, a table, a note or a message leaves it.
"""

from __future__ import annotations

import hmac
import os
import stat
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from aiene.errors import (
    NOT_SHOWN,
    AieneError,
    InputError,
    Name,
    OutputError,
    ProblemsError,
    Said,
    UsageError,
    file_name,
    os_reason,
    ours,
    said,
    visible,
)
from aiene.ingest.case import Case, Refusal
from aiene.ingest.identity import parse_id_rule
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
            raise InputError(
                file, said("the key must be a file, but this is {}", ours(what)), "name the file of the key"
            )
        if status.st_size > _MAX_BYTES:
            raise InputError(file, "it is too large to be a key (over 1 MiB)", "name the file of the key")
        secret = file.read_bytes().rstrip(b"\r\n")
    except FileNotFoundError as error:
        raise InputError(
            file,
            "there is no such key file",
            said("name one, or make it with `head -c 32 /dev/urandom > {}`", file_name(file)),
        ) from error
    except OSError as error:
        raise InputError(
            file, said("the key cannot be read ({})", os_reason(error)), "check its permissions"
        ) from error
    if len(secret) < MIN_BYTES or len(set(secret)) < _MIN_DIFFERENT:
        fault = (
            said("a key has at least {} bytes, this has {}", MIN_BYTES, len(secret))
            if len(secret) < MIN_BYTES
            else said("a key has at least {} different bytes, this has {}", _MIN_DIFFERENT, len(set(secret)))
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
            raise UsageError(said("two cases would both be called {}; use another key.", ours(name)))
        table[case_id] = name
    return table


def _open_to_others(file: Path, status: os.stat_result) -> tuple[str, ...]:
    if os.name != "posix" or not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ()
    return (
        said("{}: other users of this machine can read the key; close it with chmod 600", file_name(file)),
    )


_OWN_FACTS: Final = frozenset({"kind", "sha256", "voxels_sha256", "affine_rule", "slice_order"})
"""What a record says of an input in words or hashes of ours; other text there is the header's own."""


class Plain:
    """Every case by its own name, every text as it is."""

    def settings(self, record: dict[str, Any]) -> dict[str, Any]:
        """The run's settings for its record."""
        return record

    def uid(self, uid: str | None) -> str | None:
        """A DICOM UID."""
        return uid

    def rule(self, words: str | None) -> str | None:
        """The rule of `--id-from`."""
        return words

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
    """

    def __init__(self, key: Key) -> None:
        self._key = key
        self._ids: dict[str, str] = {}
        self._known: dict[str, str] = {}
        """Pseudonyms of ids of cases and patients, by their casefold: folders are often called the same."""

    def settings(self, record: dict[str, Any]) -> dict[str, Any]:
        """Paths, UIDs and expressions hashed, and what tells one key from another."""
        hidden: dict[str, str | None] = {
            name: self._key.label(name, record[name])
            for name in ("input", "masks")
            if record[name] is not None
        }
        if "id_from" in record:
            hidden["id_from"] = self.rule(record["id_from"])
        check = {"pseudonyms": said("HMAC-SHA256, key check value {}", ours(self._key.check_value()))}
        return {**record, **hidden, "series": self.uid(record["series"]), **check}

    def rule(self, words: str | None) -> str | None:
        """A label of a regular expression, which may hold a name."""
        free = words is not None and parse_id_rule(words).how == "regex"
        return self._key.label("id_from", words or "") if free else words

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
        patients = {case.patient: self._key.pseudonym(case.patient) for case in found if case.patient}
        self._known = {name.casefold(): shown for name, shown in (patients | self._ids).items()}
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

        Only a sentence that knows its arguments (`errors.Said`) can be shown; any other is not.
        """
        return text.without_names(self._stand_in) if isinstance(text, Said) else text and NOT_SHOWN

    def source(self, source: str) -> str:
        """A label."""
        return self._key.label("F", source) if source else ""

    def _stand_in(self, name: Name) -> str:
        if name.kind == "uid":
            return self._key.uid(name.text)
        if name.kind == "case":
            return self._key.pseudonym(name.text)
        return self._known.get(name.text.casefold()) or self._key.label("F", name.text)

    def result(self, result: CaseResult) -> CaseResult:
        """Under its pseudonym, every text and UID disguised; the hash of the content stays."""
        facts = dict(result.facts)
        if "input" in facts:
            facts["input"] = {
                **self._facts(facts["input"]),
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
            raise ProblemsError([ours(self.text(problem)) for problem in error.problems]) from None
        except AieneError as error:
            raise UsageError(ours(self.text(error.told))) from None

    def _facts(self, value: Any, name: str = "") -> Any:
        if isinstance(value, dict):
            return {key: self._facts(inner, str(key)) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._facts(inner, name) for inner in value]
        if not isinstance(value, str) or name in _OWN_FACTS:
            return value
        if name == "archives":
            return self._key.label("F", value)
        return self._key.uid(value) if name.endswith("_uid") else value and NOT_SHOWN
