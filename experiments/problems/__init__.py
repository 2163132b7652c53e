"""The problem that a member learns: a network, a data set, and the random keys of its seed."""
