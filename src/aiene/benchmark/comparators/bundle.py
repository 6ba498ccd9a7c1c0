"""Our own bundles, through the same pipeline as `aiene run`."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from aiene.benchmark.comparators.protocol import (
    Adapter,
    Answer,
    CaseInput,
    ModelFacts,
    Request,
    count_parameters,
    folder_bytes,
)
from aiene.benchmark.metrics.nodes import values_of
from aiene.device import resolve_device
from aiene.geometry.grid import Volume
from aiene.geometry.resample import pull_labels
from aiene.ingest.case import NativeCt
from aiene.ingest.read import read_case
from aiene.models.bundle import find_bundle, verify_bundle
from aiene.nodes.node import Node
from aiene.nodes.split import node_of
from aiene.pipeline import PreprocessedCase, Settings, infer_case, load_networks
from aiene.preprocess.preprocess import Prepared, load_preparation, prepare
from aiene.results.records import CaseArrays, CaseResult

_Prepared = tuple[PreprocessedCase, list[Node]]
_Inferred = tuple[CaseResult, CaseArrays, dict[int, float]]
"""The case's result and its arrays; of the truth's nodes the probability of ENE."""


class BundleComparator:
    """A bundle of a name or folder, verified and loaded.

    `infer` is the pipeline from the crop on: segment, split, classify, map to the CT; then its classifier
    alone on the truth's nodes.

    Raises
    ------
    ModelError : it cannot be used.
    """

    def __init__(self, request: Request) -> None:
        bundle = find_bundle(request.entry.source)
        verify_bundle(bundle)
        self._bundle, self._preparation = bundle, load_preparation(bundle)
        self._networks = networks = load_networks(bundle, resolve_device(request.device), own_masks=False)
        card = bundle.card
        nets = [networks.classifier.net, *(networks.segmenter.networks if networks.segmenter else ())]
        self.facts = ModelFacts(
            kind="bundle",
            sha256=bundle.sha256,
            segments=True,
            classifies=True,
            judges_truth=True,
            parameters=count_parameters(nets),
            size_bytes=folder_bytes(bundle.path),
            ene_threshold=card.ene_threshold,
            pos_from=card.rule.pos_from,
            said=(card.notice,),
        )

    def load(self, case: CaseInput) -> tuple[CaseInput, NativeCt]:
        """Read the CT."""
        return case, read_case(case.case)

    def preprocess(self, loaded: tuple[CaseInput, NativeCt]) -> _Prepared:
        """Lay the CT onto the template, crop and scale it; cut the truth's nodes for the classifier."""
        case, ct = loaded
        prepared = prepare(ct, self._preparation.template, self._preparation.profile)
        at = PreprocessedCase(case.case, prepared, None, {}, (*ct.warnings, *prepared.warnings))
        return at, truth_nodes(case.truth_nodes, prepared)

    def infer(self, prepared: _Prepared) -> _Inferred:
        """The pipeline, and the classifier on the truth's nodes."""
        card, (case, nodes) = self._bundle.card, prepared
        result, arrays = infer_case(
            case,
            self._networks,
            Settings(card.ene_threshold, pos_from=card.rule.pos_from),
            labels=card.labels,
            midline_x=self._preparation.midline_x,
        )
        scores = self._networks.classifier.scores(case.prepared.crop, nodes)
        found = zip(nodes, scores, strict=True)
        return result, arrays, {node.number: score.ene for node, score in found if score is not None}

    def answer(self, inferred: _Inferred) -> Answer:
        """Labels and nodes on the CT, as a run writes them: contours, without a layer around."""
        result, arrays, on_truth = inferred
        return Answer(
            labels=arrays.labels,
            nodes=arrays.nodes,
            confidence={row.value: row.pos for row in result.nodes if row.pos is not None},
            ene={row.value: row.ene for row in result.nodes if row.ene is not None},
            ene_on_truth=on_truth,
            warnings=result.warnings,
        )


def truth_nodes(node_map: Volume, prepared: Prepared) -> list[Node]:
    """The truth's nodes on the crop, as the pipeline would hand them to the classifier.

    Each with the published layer of one voxel around it, which keeps out of its neighbours, and then dilated.

    Parameters
    ----------
    node_map : uint16 on the native CT; a node that does not reach the crop is left out.
    """
    on_crop = pull_labels(node_map, prepared.crop.grid, prepared.to_native).array
    nodes = []
    for value in values_of(on_crop):
        own = on_crop == value
        grown = ndimage.binary_dilation(own, np.ones((3, 3, 3), bool)) & (own | (on_crop == 0))
        nodes.append(node_of(value, grown, own, prepared.crop.grid, axes=False))
    return nodes


ADAPTERS = (Adapter("bundle", "AIENE bundle", BundleComparator),)
