"""Rehearsing a rollout: the real engine and real messages against simulated devices.

Planner, store, signing, desired states, ingest's folding and gates are the controller's own, over
a database of their own; simulated are the devices, the clock and the network between.
"""
