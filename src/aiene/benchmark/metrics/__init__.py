"""What a benchmark measures: segmentation, nodes found, classification, patients."""
