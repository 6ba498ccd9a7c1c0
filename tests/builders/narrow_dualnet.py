"""A small DualNet for tests."""

from __future__ import annotations

import torch

from aiene.classify.dualnet import DualNet, DualNetWidths

NARROW = DualNetWidths((2, 3, 4, 5, 6, 7), (8, 9), 3, (2, 3, 4, 5, 6, 7, 3), 4)


def narrow_net(seed: int = 0) -> DualNet:
    """A net whose running statistics are not trivial."""
    torch.manual_seed(seed)
    net = DualNet(NARROW)
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm1d | torch.nn.BatchNorm3d):
            assert module.running_mean is not None
            assert module.running_var is not None
            module.running_mean = torch.randn_like(module.running_mean) * 0.1
            module.running_var = torch.rand_like(module.running_var) + 0.5
    return net.eval()
