"""Ingest: a process of its own between broker and database. Commit first, acknowledge after."""
