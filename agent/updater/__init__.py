"""The updater: a short-lived process that verifies, fetches and stages.

It keeps cryptography out of the resident agent. The two speak JSON lines: one request on standard
input, then progress and one result on standard output.
"""
