"""Training both networks on a group's own contours and pathology, into a model bundle.

The way of the data: `pairs` (CTs with their label maps) -> `prepared` (the road's own crop of each, with its
labels) -> `segmenter` (an nnU-Net v2 dataset, planned and trained by nnU-Net) or `classifier` (DualNet on the
nodes of `node_table`) -> `bundle` (model card, weights, figures).
"""
