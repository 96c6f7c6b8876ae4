"""The rollout engine: staged, gated, reversible.

`states` and `values` say what there is, `planner` and `gates` decide, purely; `store` reads and
writes, `engine` repeats read, plan, record; `service` is what people ask for.
"""
