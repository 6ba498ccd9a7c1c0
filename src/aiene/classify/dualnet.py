"""DualNet: two views of one lymph node, two probabilities.

The architecture is the published one (AI-ENE, JCO 2025, doi 10.1200/JCO-24-02679); only the widths may
differ.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

BOX_SIZE = (32, 118, 118)
"""Voxels along z, y, x of the box input: the node in its surroundings, at the crop's own spacing."""
SMALL_SIZE = (32, 32, 32)
"""Voxels along z, y, x of the small input: the node alone, stretched to the full size."""

NORM_EPSILON = 1e-3
LEAKY_SLOPE = 0.03
_FLATTENED_VOXELS = 1 * 4 * 4  # of the box after five poolings


@dataclass(frozen=True)
class DualNetWidths:
    """Channels of each layer; the defaults are the published network's, 48,265,890 parameters.

    Parameters
    ----------
    box : conv1, conv2, conv3a, conv3b, conv4a, conv4b of the box branch.
    box_dense : the box branch's two hidden dense layers.
    box_values : what the box branch gives to the head.
    small : conv1s, conv2s, conv3as, conv3bs, conv4as, conv4bs, last_64s of the small branch.
    head : the hidden dense layer of the head.

    Raises
    ------
    ValueError : a number of layers that is not the architecture's, or a width below 1.
    """

    box: tuple[int, ...] = (64, 128, 256, 256, 512, 512)
    box_dense: tuple[int, ...] = (2048, 2048)
    box_values: int = 3
    small: tuple[int, ...] = (64, 128, 256, 256, 512, 512, 64)
    head: int = 4

    def __post_init__(self) -> None:
        counts = (len(self.box), len(self.box_dense), len(self.small))
        if counts != (6, 2, 7):
            raise ValueError(f"DualNet has 6, 2 and 7 layers (box, box_dense, small), not {counts}")
        if min(*self.box, *self.box_dense, self.box_values, *self.small, self.head) < 1:
            raise ValueError("a layer of DualNet has at least one channel")


class ConvBlock(nn.Module):
    """Convolution, batch normalisation, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int = 3) -> None:
        super().__init__()
        padding = "same" if kernel == 3 else "valid"
        self.conv = nn.Conv3d(channels_in, channels_out, kernel, padding=padding)
        self.norm = nn.BatchNorm3d(channels_out, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(n, channels_in, z, y, x) to (n, channels_out, z, y, x)."""
        return functional.leaky_relu(self.norm(self.conv(x)), LEAKY_SLOPE, inplace=True)


class DenseBlock(nn.Module):
    """Dense layer, batch normalisation, leaky ReLU."""

    def __init__(self, values_in: int, values_out: int) -> None:
        super().__init__()
        self.dense = nn.Linear(values_in, values_out)
        self.norm = nn.BatchNorm1d(values_out, eps=NORM_EPSILON)

    def forward(self, x: Tensor) -> Tensor:
        """(n, values_in) to (n, values_out)."""
        return functional.leaky_relu(self.norm(self.dense(x)), LEAKY_SLOPE, inplace=True)


class Convolutions(nn.Module):
    """The six convolutions that both branches begin with, of these channels."""

    def __init__(self, w: tuple[int, ...]) -> None:
        super().__init__()
        self.conv1 = ConvBlock(1, w[0])
        self.conv2 = ConvBlock(w[0], w[1])
        self.conv3a = ConvBlock(w[1], w[2])
        self.conv3b = ConvBlock(w[2], w[3])
        self.conv4a = ConvBlock(w[3], w[4])
        self.conv4b = ConvBlock(w[4], w[5])


class BoxBranch(Convolutions):
    """The node in its place: (n, 1, 32, 118, 118) to (n, box_values)."""

    def __init__(self, widths: DualNetWidths, dropout: float) -> None:
        super().__init__(widths.box)
        self.dense1 = DenseBlock(_FLATTENED_VOXELS * widths.box[5], widths.box_dense[0])
        self.dense2 = DenseBlock(widths.box_dense[0], widths.box_dense[1])
        self.values = nn.Linear(widths.box_dense[1], widths.box_values)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The branch's values, none below 0."""
        x = functional.avg_pool3d(x, (2, 1, 1))
        x = functional.max_pool3d(self.conv1(x), (1, 2, 2))
        x = self.dropout(functional.max_pool3d(self.conv2(x), 2))
        x = functional.max_pool3d(self.conv3a(x), 2)
        x = self.dropout(functional.max_pool3d(self.conv3b(x), 2))
        x = self.conv4b(self.conv4a(x))
        # Real zeros, which win against negative values: not the pooling's own padding of minus infinity.
        x = functional.pad(x, (1, 1, 1, 1, 0, 0))
        x = self.dropout(functional.max_pool3d(x, 2))
        x = x.permute(0, 2, 3, 4, 1).flatten(1)  # channels last, as the published dense weights expect
        x = self.dropout(self.dense1(x))
        x = self.dropout(self.dense2(x))
        return functional.relu(self.values(x))


class SmallBranch(Convolutions):
    """The node alone: (n, 1, 32, 32, 32) to (n, 1)."""

    def __init__(self, widths: DualNetWidths, dropout: float) -> None:
        super().__init__(widths.small)
        w = widths.small
        self.last = ConvBlock(w[5], w[6], kernel=2)
        self.value = nn.Conv3d(w[6], 1, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """The branch's one value."""
        x = functional.avg_pool3d(x, (2, 1, 1))
        x = functional.max_pool3d(self.conv1(x), (1, 2, 2))
        x = self.dropout(functional.max_pool3d(self.conv2(x), 2))
        x = self.dropout(functional.max_pool3d(self.conv3b(self.conv3a(x)), 2))
        x = self.dropout(functional.max_pool3d(self.conv4b(self.conv4a(x)), 2))
        value: Tensor = self.value(self.dropout(self.last(x)))
        return value.flatten(1)


class DualNet(nn.Module):
    """Node positivity and ENE from two views of a node.

    Parameters
    ----------
    widths : channels of each layer.
    box_dropout, small_dropout : rates in training, the published ones by default; off in `eval` mode.
    """

    def __init__(
        self, widths: DualNetWidths | None = None, *, box_dropout: float = 0.4, small_dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.widths = widths if widths is not None else DualNetWidths()
        self.box = BoxBranch(self.widths, box_dropout)
        self.small = SmallBranch(self.widths, small_dropout)
        self.head = nn.Linear(1 + self.widths.box_values, self.widths.head)
        self.out = nn.Linear(self.widths.head, 2)

    def logits(self, box: Tensor, small: Tensor) -> Tensor:
        """What the sigmoid takes: (n, 2), column 0 `pos`, column 1 `ene`; for losses.

        Parameters
        ----------
        box : float (n, 1, 32, 118, 118), normalised.
        small : float (n, 1, 32, 32, 32), normalised.
        """
        values = torch.cat([self.small(small), self.box(box)], dim=1)
        logits: Tensor = self.out(functional.relu(self.head(values)))
        return logits

    def forward(self, box: Tensor, small: Tensor) -> Tensor:
        """Probabilities (n, 2): column 0 `pos`, column 1 `ene`; inputs as for `logits`."""
        return torch.sigmoid(self.logits(box, small))
