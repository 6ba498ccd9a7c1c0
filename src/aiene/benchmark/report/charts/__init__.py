"""The charts of a benchmark, one module for each family; each gives a `Chart`, or None without data."""
