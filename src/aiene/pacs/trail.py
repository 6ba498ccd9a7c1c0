"""What happened, as JSON lines: `events.jsonl` for the engineer, `audit.jsonl` for who sent what when.

No patient's name or id and no UID stands there; a study appears under the name that the store gives it, and
with its UID only where the engineer asked for that.
"""

from __future__ import annotations

import json
import logging
import os
import threading
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Final

from aiene.errors import visible

_LARGEST: Final = 10 * 1024 * 1024
_KEPT: Final = 5


class Trail:
    """Both files, in a folder.

    Parameters
    ----------
    folder : must be there.
    show_uids : whether StudyInstanceUIDs stand in the lines too.
    """

    def __init__(self, folder: Path, *, show_uids: bool = False) -> None:
        self._show_uids = show_uids
        self._lock = threading.Lock()
        self._events = _private(folder / "events.jsonl", _KEPT)
        self._audit = _private(folder / "audit.jsonl", 1000)  # an audit trail is not to be lost

    def event(self, what: str, **facts: Any) -> None:
        """A line for the engineer."""
        self._write(self._events, what, facts)

    def audit(self, what: str, **facts: Any) -> None:
        """A line on who did what; it stands in both files."""
        self._write(self._audit, what, facts)
        self._write(self._events, what, facts)

    def close(self) -> None:
        """Close both files."""
        self._events.close()
        self._audit.close()

    def _write(self, handler: RotatingFileHandler, what: str, facts: dict[str, Any]) -> None:
        shown = {
            key: visible(value) if isinstance(value, str) else value
            for key, value in facts.items()
            if value is not None and (key != "study_uid" or self._show_uids)
        }
        line = json.dumps(
            {"time": datetime.now(UTC).isoformat(timespec="milliseconds"), "event": what, **shown}
        )
        with self._lock:
            handler.handle(logging.makeLogRecord({"msg": line}))


class _Quiet(RotatingFileHandler):
    """A log on a full disk loses lines; it never stops what is logged."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 (the name in logging)
        return

    def _open(self) -> Any:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        return os.fdopen(handle, self.mode, encoding=self.encoding)


def _private(file: Path, kept: int) -> RotatingFileHandler:
    return _Quiet(file, maxBytes=_LARGEST, backupCount=kept, encoding="utf-8")
