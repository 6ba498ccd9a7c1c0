"""Lymph nodes: split from the segmentation, measured, and placed on the patient's own CT."""
