"""The demo's parts: what it tells, what it sets up, what it observes and checks."""
