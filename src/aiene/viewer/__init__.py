"""Pages to look at: one for each patient with the CT in three planes, and one for the cohort."""
