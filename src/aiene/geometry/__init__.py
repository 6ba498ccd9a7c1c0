"""Space: where voxels lie in the patient, and every way between two grids."""
