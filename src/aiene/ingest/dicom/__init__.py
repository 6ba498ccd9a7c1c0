"""DICOM: from a heap of files to the one axial CT that covers the neck, stacked by its own geometry."""
