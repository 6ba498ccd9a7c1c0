"""A parametric head-and-neck CT phantom with planted lymph nodes, smooth and with extranodal extension."""
