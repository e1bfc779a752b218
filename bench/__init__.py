"""Measurements: ratios inside one run against a floor or a peer. `make bench`."""
