"""Models against ground truth and each other: measured, with intervals, and honest about no difference."""
