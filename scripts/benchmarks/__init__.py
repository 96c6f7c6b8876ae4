"""Benchmarks: figures by group, printed as a table or as JSON. Run by `scripts/bench`."""
