"""Training both networks on a group's own contours and pathology, into a model bundle.

`dataset` pairs CTs with their label maps and makes the crops that inference sees; `segmenter` has an nnU-Net
v2 dataset planned and trained by nnU-Net; `classifier` trains DualNet on the nodes of `nodes`; `bundle`
writes the model card, the weights and the metrics.
"""
