"""The restricted unpickler: plans come through, anything else is refused unrun."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiene.errors import ModelError
from aiene.models.importers.nnunet import plain, read_pickle


class Marker:
    """Leaves a file where it is unpickled."""

    def __init__(self, file: Path, how: Any = Path.touch) -> None:
        self.file, self.how = file, how

    def __reduce__(self) -> tuple[Any, ...]:
        return self.how, (self.file,)


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plans_come_through_as_they_are(tmp_path: Path, protocol: int) -> None:
    plans: dict[str, Any] = OrderedDict(
        name="a", stages={0: {"do": False, "pool": [[1, 2, 2]], "share": 0.5}}, none=None
    )
    if protocol > 2:  # protocol 2 writes numpy's bytes through _codecs.encode, which v1's plans do not need
        plans |= {"patch": np.array([48, 128, 128]), "sd": np.float32(0.25), "flag": np.bool_(True)}
    file = tmp_path / "plans.pkl"
    file.write_bytes(pickle.dumps(plans, protocol))
    found = read_pickle(file)
    assert isinstance(found, OrderedDict)
    assert plain(found) == plain(plans)
    assert plain(plans)["stages"]["0"]["pool"] == [[1, 2, 2]]


@pytest.mark.parametrize("module", [b"numpy.core.multiarray", b"numpy._core.multiarray"])
def test_numpy_1_and_numpy_2_names_are_both_known(tmp_path: Path, module: bytes) -> None:
    content = pickle.dumps({"a": np.arange(3.0), "b": np.float64(2)}, 2 + 1)
    short = b"numpy._core.multiarray" if b"numpy._core.multiarray" in content else b"numpy.core.multiarray"
    file = tmp_path / "plans.pkl"
    file.write_bytes(content.replace(b"c" + short + b"\n", b"c" + module + b"\n"))
    assert module in file.read_bytes()
    found = read_pickle(file)
    assert found["a"].tolist() == [0.0, 1.0, 2.0]
    assert found["b"] == 2


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_pickle_that_wants_to_run_code_is_refused_unrun(tmp_path: Path, protocol: int) -> None:
    marker, file = tmp_path / "marker", tmp_path / "plans.pkl"
    content = pickle.dumps({"num_modalities": 1, "x": Marker(marker, os.mkdir)}, protocol)
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"plans\.pkl: asks for .*mkdir.*, .*not opened"):
        read_pickle(file)
    assert not marker.exists()
    pickle.loads(content)  # noqa: S301
    assert marker.exists()  # it would have run


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("builtins", "eval"),
        ("os", "system"),
        ("numpy", "load"),
        ("numpy", "dtype.type"),
        ("collections", "OrderedDict.fromkeys"),
        ("antigravity", "fly"),
    ],
)
def test_nothing_beside_the_list_is_looked_up(tmp_path: Path, module: str, name: str) -> None:
    words = b"".join(b"\x8c" + bytes([len(word)]) + word.encode() for word in (module, name))
    file = tmp_path / "plans.pkl"
    file.write_bytes(b"\x80\x04" + words + b"\x93.")  # STACK_GLOBAL of the two words
    with pytest.raises(ModelError, match=f"asks for {module}.{name}, which no plan needs"):
        read_pickle(file)


@pytest.mark.parametrize("content", [b"", b"text", b"\x80\x04", b"\x80\x04K\x01\x8c\xff.", b"\x80\x04)R."])
def test_a_damaged_pickle_is_named(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "plans.pkl"
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"^plans\.pkl: is not a pickle, or is damaged"):
        read_pickle(file)


def test_an_absent_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^plans\.pkl: cannot be read"):
        read_pickle(tmp_path / "plans.pkl")
