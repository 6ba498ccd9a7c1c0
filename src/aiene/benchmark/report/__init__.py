"""The report of a benchmark: one HTML page, with each of its charts as PNG, SVG and CSV beside it."""
