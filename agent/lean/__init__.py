"""A worker's arithmetic without numpy, for the smallest devices.

With the TensorFlow Lite C library a worker then needs neither numpy nor a Python runtime: a third
of the memory. The same steps, statistics and answers as `shoal.steps`, `shoal.statistics` and
`agent.workers.worker`; contract tests hold both together.
"""
