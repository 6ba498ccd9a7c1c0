"""The segmenter's classes: tumour, and the organs that OpenKBP's doctors outlined, as further labels.

Left and right parotid are one class, since training and inference mirror.
"""

from __future__ import annotations

CLASSES: dict[str, int] = {
    "background": 0,
    "GTVp": 1,
    "GTVn": 2,
    "brainstem": 3,
    "spinal_cord": 4,
    "parotid": 5,
    "oesophagus": 6,
    "larynx": 7,
    "mandible": 8,
}
"""Name and label, as they stand in the bundle's `dataset.json`."""

PRIMARY, NODE = CLASSES["GTVp"], CLASSES["GTVn"]
IGNORE = 255
"""Label of voxels that neither teach nor count."""

OF_OPENKBP = {1: 3, 2: 4, 3: 5, 4: 5, 5: 6, 6: 7, 7: 8}
"""Our label of each value of `oar.nii.gz` (brainstem, cord, right and left parotid, oesophagus, larynx,
mandible)."""
