"""The crop goes in, its label map comes out: any model in nnU-Net v2's trained-model layout."""

from aiene.segment.segmenter import Segmenter, load_segmenter

__all__ = ["Segmenter", "load_segmenter"]
