"""The controller: ingest, fleet, releases, rollouts, drift and the web."""
