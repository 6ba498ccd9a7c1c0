"""Pseudonyms: the keyed hash that stands in a run's results where a patient's own name would.

HMAC-SHA256 (RFC 2104) under the user's own key. The same key gives the same pseudonym in every run, so tables
of several runs can be joined; without the key nobody can compute or check one. The key is never stored, and
nothing here takes a pseudonym back: whoever holds key and names makes the table again (`aiene pseudonyms`).
"""

from __future__ import annotations

import hmac
import os
import re
import stat
import uuid
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiene.errors import InputError, UsageError

MIN_BYTES: Final = 16
_MAX_BYTES: Final = 1 << 20
_MIN_DIFFERENT: Final = 8
_LETTERS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: none looks like another
_LENGTH: Final = 10
_UID: Final = re.compile(r"[0-9]+(\.[0-9]+)+")


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
            what = "a folder" if stat.S_ISDIR(status.st_mode) else "no file that stays the same"
            raise InputError(file, f"the key must be a file, and this is {what}", "name the file of the key")
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


def looks_like_uid(text: str) -> bool:
    """Whether a text is made like a DICOM UID: numbers and dots."""
    return _UID.fullmatch(text) is not None


def _open_to_others(file: Path, status: os.stat_result) -> tuple[str, ...]:
    if os.name != "posix" or not status.st_mode & (stat.S_IRGRP | stat.S_IROTH):
        return ()
    return (f"{file.name}: other users of this machine can read the key; close it with chmod 600",)
