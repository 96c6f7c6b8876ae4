"""`python -m benchmarks.bare_subscriber HOST PORT USER PASSWORD COUNT`: receive and count, no more.

paho with its own acknowledgements, the plainest subscriber there is. Prints `ready` once it is
subscribed, then the time at which message number COUNT came.
"""

from __future__ import annotations

import sys
import time

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion

from shoal.protocol.topics import up_filters


def main() -> None:
    """Count to COUNT, then leave."""
    host, port, user, password, count = sys.argv[1:6]
    wanted, received = int(count), 0
    client = mqtt.Client(
        CallbackAPIVersion.VERSION2, client_id=user, clean_session=True, protocol=mqtt.MQTTv311
    )
    client.username_pw_set(user, password)

    def on_message(_client: mqtt.Client, _user: object, _message: mqtt.MQTTMessage) -> None:
        nonlocal received
        received += 1
        if received == wanted:
            print(time.time(), flush=True)
            client.disconnect()

    client.on_connect = lambda c, u, f, reason, p: c.subscribe([(one, 1) for one in up_filters()])
    client.on_subscribe = lambda c, u, mid, reasons, p: print("ready", flush=True)
    client.on_message = on_message
    client.connect(host, int(port), keepalive=30)
    client.loop_forever()


if __name__ == "__main__":
    main()
