"""Programs around the package that are not installed with it."""
