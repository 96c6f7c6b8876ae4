"""Makes the state folder and its databases; runs only in short-lived processes."""

from __future__ import annotations

from pathlib import Path

import sqlite_utils

from agent.state_files import KEYS, OUTBOX_TABLES, SCHEMA_VERSION, STATE_TABLES


def prepare_state(folder: Path) -> None:
    """Create what is missing in `folder`; what is there stays."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    (folder / "files").mkdir(exist_ok=True)
    for name, tables in (("state.sqlite", STATE_TABLES), ("outbox.sqlite", OUTBOX_TABLES)):
        database = sqlite_utils.Database(folder / name)
        database.enable_wal()
        for table, columns in tables.items():
            database.table(table).create(columns, pk=KEYS[table], if_not_exists=True)
        if name == "outbox.sqlite":
            messages = database.table("messages")
            messages.create_index(["boot_id", "seq"], if_not_exists=True)
            messages.create_index(["class", "id"], if_not_exists=True)
        database.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        database.close()
