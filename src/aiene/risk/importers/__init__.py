"""Public collections and own tables, read into the canonical table; what was understood is always told."""
