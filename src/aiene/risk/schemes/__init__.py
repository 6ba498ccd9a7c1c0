"""Schemes: how a base group and a node count make a combined group; data, not code; none is the paper's."""
