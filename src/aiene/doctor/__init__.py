"""What is wrong with an install or a site, and how to mend it."""
