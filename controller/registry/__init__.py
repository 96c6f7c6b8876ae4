"""The registry: names that point at releases, who agreed to them, cards, lineage, retention.

`aliases` are names such as `champion` that people and rollouts use instead of a version; each
move is kept with who, when, from, to and why, and may need another person (`signoff`).
"""
