"""A controller, its broker and agents as real processes on this machine.

What the demo, the fleet tests and the benchmarks have in common. Everything it starts dies with
the process that started it, however that ends.
"""
