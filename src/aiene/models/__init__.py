"""Model bundles: reading, finding, and importing the published assets into one."""
