"""The imported segmenter beside nnU-Net v1's own code."""
