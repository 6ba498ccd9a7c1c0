"""The crop goes in, its label map comes out: any model in nnU-Net v2's trained-model layout."""
