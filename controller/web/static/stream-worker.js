// One connection to the controller for all tabs of a browser, which allows only six to a host.
"use strict";

const ports = new Set();
const kinds = ["fleet", "rollout", "events", "telemetry"];
let source = null;
let online = false;

function tell(message) {
  for (const port of ports) port.postMessage(message);
}

function open(url) {
  source = new EventSource(url);
  source.onopen = () => tell({ online: (online = true) });
  source.onerror = () => {
    tell({ online: (online = false) });
    if (source.readyState === EventSource.CLOSED) setTimeout(() => open(url), 5000);
  };
  for (const kind of kinds) source.addEventListener(kind, () => tell({ kind }));
}

self.onconnect = (event) => {
  const port = event.ports[0];
  ports.add(port);
  port.onmessage = (message) => {
    if (message.data.leave) ports.delete(port);
    else if (source === null) open(message.data.url);
    else port.postMessage({ online });
  };
};
