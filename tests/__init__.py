"""Tests by cost. A package, for one of the peers installs another of this name."""
