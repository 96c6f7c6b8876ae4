"""The wire contract: topics, messages, desired state, envelopes and the package manifest.

Imported by both sides of the wire, so it depends on nothing but msgspec. `SCHEMA` is one
integer; its log says what each number means. Readers tolerate unknown fields, writers write
exactly the documented ones.
"""

SCHEMA = 1
# 1  2026-11-24  first: state, health, window, statistics, predictions, event, acked, desired,
#                package manifest, release statement.
STATISTICS_SCHEMA = 2
# 2  2026-11-25  fields as columns, defaults left out; every other document stays at 1.

MAX_MESSAGE_BYTES = 128 * 1024
"""Largest MQTT payload either side publishes or reads (AWS IoT's limit)."""
