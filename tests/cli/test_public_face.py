"""What may be imported from `aiene` itself."""

from __future__ import annotations

import pytest

import aiene


def test_every_public_name_is_there_and_has_a_home() -> None:
    assert set(aiene.__all__) == aiene._HOMES.keys()
    for name in aiene.__all__:
        assert getattr(aiene, name).__name__ == name
        assert getattr(aiene, name).__doc__


def test_another_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'segment_everything'"):
        aiene.segment_everything  # noqa: B018
