"""The listener is killed at random moments, and every study is done once (30 kills: tools/measurements)."""

from __future__ import annotations

from pathlib import Path

import pytest

from builders.orthanc import Orthanc
from builders.pacs_kills import trial


@pytest.mark.slow
def test_after_kills_every_study_is_done_once_with_the_same_objects(
    empty_archive: Orthanc, tmp_path: Path
) -> None:
    ended = trial(tmp_path, empty_archive, studies=2, kills=2, seed=17, longest_s=6.0)
    assert ended.failed == {}
    assert ended.arrived == ended.expected
    assert all(len(found) == 3 for found in ended.arrived.values())
