"""Worked examples on real data that installs with the extra `demo`."""
