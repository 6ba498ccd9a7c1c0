"""Results as DICOM objects that reference the source images: SEG, SR, RTSTRUCT, secondary capture."""
