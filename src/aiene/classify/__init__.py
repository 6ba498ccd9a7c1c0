"""The classifier: node positivity and extranodal extension for each node."""
