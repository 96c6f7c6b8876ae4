"""A release of Shoal itself as a folder that can be verified before anything is installed.

`scripts/release` is the command. What a folder holds stands in docs/how-to/release.md.
"""
