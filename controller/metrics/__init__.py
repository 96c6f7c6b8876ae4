"""What the controller tells Prometheus: its own work, and the fleet as the database has it.

Counters of the process (`process`) are counted where things happen. Figures of the fleet come from
one snapshot of the database (`snapshot`), shared by all scrapes, and are turned into metrics by
pure functions (`fleet`). No label has a value for each device: sites, models and versions beyond
the largest are "other".
"""
