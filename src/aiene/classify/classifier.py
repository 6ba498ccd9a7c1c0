"""Nodes go in, their probabilities come out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.utils import convert_conv3d_weight_memory_format

from aiene.classify.dualnet import DualNet
from aiene.classify.inputs import ClassifierInputs, Normalisation, classifier_inputs
from aiene.classify.storage import load_dualnet
from aiene.geometry import Volume
from aiene.nodes.node import Node, Score

UNSCORED = "no tissue under the node's mask, so the classifier gives no probability"
"""Why `Classifier.scores` gives None for a node, for the case's warnings."""

BATCH_SIZE = 4
"""Nodes at a time: about 0.25 GB each at the published widths."""


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network that is ready, and how its inputs are normalised.

    Parameters
    ----------
    net : in `eval` mode on `device`, float32.
    normalisation : of both inputs, as the weights expect.
    device : where it runs.
    batch_size : nodes at a time, which bounds the memory.
    """

    net: DualNet
    normalisation: Normalisation
    device: torch.device
    batch_size: int = BATCH_SIZE

    def scores(self, crop: Volume, nodes: Sequence[Node]) -> list[Score | None]:
        """The probabilities of each node, in the order given.

        A node's result does not depend on the other nodes but for the order of float32 sums: another batch
        size moves a probability by at most about 1e-6. The same nodes on the same machine with the same
        number of threads give the same bits.

        Parameters
        ----------
        crop : float32, the networks' input.
        nodes : of this crop.

        Returns
        -------
        One for each node; None where there is nothing to classify (see `UNSCORED`).
        """
        result: list[Score | None] = []
        for start in range(0, len(nodes), self.batch_size):
            batch = nodes[start : start + self.batch_size]
            inputs = [classifier_inputs(crop.array, node.dilated, self.normalisation) for node in batch]
            rows = iter(self.probabilities([i for i in inputs if i is not None]).tolist())
            result.extend(None if i is None else Score(*next(rows)) for i in inputs)
        return result

    def probabilities(self, inputs: Sequence[ClassifierInputs]) -> npt.NDArray[np.float64]:
        """One batch through the network: (n, 2), column 0 `pos`, column 1 `ene`."""
        if not inputs:
            return np.zeros((0, 2))
        box = self._tensor([i.box for i in inputs])
        small = self._tensor([i.small for i in inputs])
        # TF32 would cost three decimal places; the fastest algorithm of the day would cost repeatability.
        exact = torch.backends.cudnn.flags(
            enabled=True, benchmark=False, deterministic=True, allow_tf32=False
        )
        with torch.inference_mode(), exact:
            probabilities: Tensor = self.net(box, small)
        return probabilities.cpu().double().numpy()

    def _tensor(self, arrays: list[npt.NDArray[np.float32]]) -> Tensor:
        return torch.from_numpy(np.stack(arrays)[:, None]).to(self.device)


def load_classifier(folder: Path, *, normalisation: Normalisation, device: torch.device | str) -> Classifier:
    """The classifier of a bundle.

    Parameters
    ----------
    folder : with `config.json` and `weights.safetensors`, kernels in float32 or float16.
    normalisation : from the bundle's card.
    device : where it shall run, in float32 in any case.

    Raises
    ------
    ModelError : a file that is missing or damaged, a layer that is missing or misshapen.
    """
    place = torch.device(device)
    net = load_dualnet(folder).to(place)
    if place.type == "cpu":
        # Channels last in memory: the same numbers, with a third less computing time.
        net = convert_conv3d_weight_memory_format(net, torch.channels_last_3d)
    return Classifier(net, normalisation, place)
