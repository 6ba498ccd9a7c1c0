"""From files to CTs in HU with their geometry: what is there, which of it is a CT, and its voxels."""
