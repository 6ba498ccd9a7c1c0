"""The network: its size, its shapes, and its way to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from aiene.classify.classifier import load_dualnet, save_classifier
from aiene.classify.dualnet import DualNet, DualNetWidths
from aiene.errors import ModelError, OutputError
from builders.narrow_dualnet import NARROW, narrow_net


def inputs(n: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    box = torch.rand((n, 1, 32, 118, 118), generator=generator)
    return box, torch.rand((n, 1, 32, 32, 32), generator=generator)


def test_the_published_network_has_48265890_parameters() -> None:
    with torch.device("meta"):
        state = DualNet().state_dict()
    assert sum(t.numel() for name, t in state.items() if "num_batches" not in name) == 48_265_890


def test_two_probabilities_come_out_for_each_node() -> None:
    net = narrow_net()
    with torch.inference_mode():
        out, logits = net(*inputs(3)), net.logits(*inputs(3))
    assert out.shape == (3, 2)
    torch.testing.assert_close(out, 1 / (1 + torch.exp(-logits)))
    assert len(torch.unique(out)) > 2


def test_gradients_reach_every_parameter_in_training() -> None:
    net = narrow_net().train()
    torch.nn.init.constant_(net.box.values.bias, 1.0)  # keep the ReLUs open
    torch.nn.init.constant_(net.head.bias, 5.0)
    net.logits(*inputs(4)).sum().backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in net.parameters())


@pytest.mark.parametrize("wrong", [{"box": (1, 2)}, {"small": (1,) * 6}, {"box_dense": (4,)}, {"head": 0}])
def test_widths_of_another_architecture_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="DualNet"):
        DualNetWidths(**wrong)  # type: ignore[arg-type]


def test_what_is_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    net = narrow_net()
    save_classifier(tmp_path / "new" / "classifier", net)
    back = load_dualnet(tmp_path / "new" / "classifier")
    assert back.widths == NARROW
    assert not back.training
    with torch.inference_mode():
        assert torch.equal(net(*inputs(2)), back(*inputs(2)))


def test_half_stored_weights_are_computed_in_float32(tmp_path: Path) -> None:
    net = narrow_net()
    save_classifier(tmp_path, net, half=True)
    stored = load_file(tmp_path / "weights.safetensors")
    assert stored["box.conv1.conv.weight"].dtype == torch.float16
    assert stored["box.conv1.norm.running_var"].dtype == torch.float32
    back = load_dualnet(tmp_path)
    assert {p.dtype for p in back.parameters()} == {torch.float32}
    with torch.inference_mode():
        np.testing.assert_allclose(back(*inputs(2)), net(*inputs(2)), atol=1e-3)


def spoil(folder: Path, damage: str) -> None:
    """One kind of damage to a saved classifier."""
    file = folder / "weights.safetensors"
    config = folder / "config.json"
    state = load_file(file)
    if damage == "missing":
        del state["box.conv3a.conv.bias"]
    elif damage == "misshapen":
        state["box.conv3a.conv.bias"] = torch.zeros(99)
    elif damage == "unknown":
        state["extra"] = torch.zeros(1)
    elif damage == "infinite":
        state["head.bias"][0] = torch.inf
    save_file(state, file)
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:500])
    elif damage == "no weights":
        file.unlink()
    elif damage == "no config":
        config.unlink()
    elif damage == "other config":
        config.write_text(json.dumps({"architecture": "ResNet"}))
    elif damage == "huge":
        config.write_text(config.read_text().replace('"head": 4', '"head": 1000000000000'))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("missing", "layer box.conv3a.conv.bias is missing"),
        ("misshapen", r"layer box.conv3a.conv.bias has shape \(99,\) instead of \(4,\)"),
        ("unknown", "layer extra belongs to another network"),
        ("infinite", "layer head.bias holds values that are not finite"),
        ("truncated", "weights.safetensors: cannot be read"),
        ("no weights", "weights.safetensors: cannot be read"),
        ("no config", "config.json: cannot be read"),
        ("other config", "config.json: no classifier's configuration"),
        ("huge", "config.json: no classifier's configuration: widths.head"),
    ],
)
def test_damage_is_told_by_file_and_layer(tmp_path: Path, damage: str, words: str) -> None:
    save_classifier(tmp_path, narrow_net())
    spoil(tmp_path, damage)
    with pytest.raises(ModelError, match=words):
        load_dualnet(tmp_path)


def test_weights_too_large_for_half_are_not_written(tmp_path: Path) -> None:
    net = narrow_net()
    torch.nn.init.constant_(net.head.weight, 1e6)
    with pytest.raises(ModelError, match=r"head\.weight holds values that are not finite"):
        save_classifier(tmp_path, net, half=True)
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(OutputError, match="taken: the classifier cannot be written there"):
        save_classifier(tmp_path / "taken", narrow_net())
    (tmp_path / "weights.safetensors").mkdir()
    with pytest.raises(OutputError, match="cannot be written there"):
        save_classifier(tmp_path, narrow_net())
