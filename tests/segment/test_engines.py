"""Engines: the fast one answers as the exact one but for rounding, and is told wherever it worked."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
import torch

from aiene.geometry.grid import Grid, Volume
from aiene.models.bundle import default_folder
from aiene.segment import engines
from aiene.segment.engines import exact_engine, fast_engine, fastest_here, offered
from aiene.segment.network import answer
from aiene.segment.segmenter import Segmenter, load_segmenter

CPU = torch.device("cpu")
PATCH = (32, 80, 80)
"""An eighth of the bundle's."""


@pytest.fixture(scope="module")
def segmenter() -> Segmenter:
    return load_segmenter(default_folder() / "segmenter", labels={"GTVn": 1})


def tile() -> torch.Tensor:
    random = np.random.default_rng(3).normal(size=PATCH)
    return torch.from_numpy(random.astype(np.float32))[None, None]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["openvino bfloat16", "torch bfloat16", "openvino float32"])
def test_each_engine_answers_as_the_exact_one_but_for_rounding(segmenter: Segmenter, name: str) -> None:
    made = dict(offered(CPU)).get(name)
    if made is None:
        pytest.skip(f"this processor or installation does not offer {name}")
    given = tile()
    with torch.inference_mode():
        expected = exact_engine(segmenter.networks).answers[0](given)
        found = made(segmenter.networks[0], PATCH)(given)
        again = exact_engine(segmenter.networks).answers[0](given)
    assert found.dtype == torch.float32
    assert found.shape == expected.shape
    assert torch.equal(expected, again)  # the exact engine's network was left as it is
    apart = float((found - expected).square().mean().sqrt() / expected.square().mean().sqrt())
    assert 0 < apart < (1e-3 if "32" in name else 0.05)


@pytest.mark.slow
def test_an_engine_that_computes_something_else_is_not_taken(
    segmenter: Segmenter, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def wrong(network: torch.nn.Module, patch: tuple[int, int, int]) -> engines.Answer:
        return lambda tile: torch.flip(answer(network, tile), [2])

    def broken(network: torch.nn.Module, patch: tuple[int, int, int]) -> engines.Answer:
        raise RuntimeError("no such operation\nmany lines")

    monkeypatch.setattr(engines, "offered", lambda _: iter([("a", broken), ("b", wrong)]))
    with caplog.at_level("WARNING"):
        engine = fast_engine(segmenter.networks, PATCH, CPU)
    assert (engine.name, engine.exact, engine.notes) == ("torch float32", True, ())
    assert caplog.messages == [
        "a cannot run this network (no such operation)",
        "b gave a wrong answer in the check and is not used",
    ]


def test_without_the_extra_torch_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert fastest_here(CPU) == "torch float32"


def test_no_use_is_reported_to_anybody() -> None:
    list(offered(CPU))
    assert sys.modules.get("openvino_telemetry") is None


def test_probabilities_come_from_the_engine(segmenter: Segmenter) -> None:
    grid = Grid(segmenter.plan.patch, (3.0, 1.0, 1.0), (0.0, 0.0, 0.0))
    crop = Volume(np.random.default_rng(0).random(grid.size).astype(np.float32), grid)
    fixed = engines.Engine("fixed", (lambda t: torch.zeros((1, segmenter.plan.classes, *t.shape[2:])),))
    found = replace(segmenter, engine=fixed).probabilities(crop)
    np.testing.assert_allclose(found, 1 / segmenter.plan.classes)
