"""Does the effect of the count hold: centres, other nodes, time, subgroups, several tests."""
