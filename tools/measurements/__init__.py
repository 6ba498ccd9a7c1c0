"""What the package costs and how close it comes to its references: each module is run by `python -m`."""
