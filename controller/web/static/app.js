// Keeps a page fresh: at most once a second, asks for the parts whose kind of thing has changed,
// and swaps in only what reads differently. Without this script pages are whole, just not live.
"use strict";

(() => {
  const PERIOD_MS = 1000;
  const KINDS = ["fleet", "rollout", "events", "telemetry"];
  const dirty = new Set();
  const shown = new WeakMap();
  let timer = null;
  let last = 0;

  // Changes

  function note(kind) {
    dirty.add(kind);
    if (timer === null && !document.hidden) {
      timer = setTimeout(refresh, Math.max(0, last + PERIOD_MS - Date.now()));
    }
  }

  function refresh() {
    timer = null;
    last = Date.now();
    const kinds = [...dirty];
    dirty.clear();
    for (const part of document.querySelectorAll("[data-live]")) {
      const own = part.dataset.live.split(" ");
      if (kinds.some((kind) => own.includes(kind))) htmx.trigger(part, "refresh");
    }
    document.dispatchEvent(new CustomEvent("shoal:changed", { detail: kinds }));
  }

  document.addEventListener("visibilitychange", () => {
    if (!document.hidden) for (const kind of KINDS) note(kind);
  });

  document.addEventListener("htmx:beforeSwap", (event) => {
    const { target, serverResponse, xhr } = event.detail;
    if (xhr.status === 401) return location.reload();
    const inUse = target.contains(document.getSelection()?.anchorNode)
      && !document.getSelection().isCollapsed;
    if (inUse || shown.get(target) === serverResponse) event.detail.shouldSwap = false;
    else shown.set(target, serverResponse);
  });

  // What people have opened stays open over a swap.
  document.addEventListener("htmx:beforeSwap", (event) => {
    const found = event.detail.target.querySelectorAll("details");
    event.detail.target.shoalOpen = [...found].map((one) => one.open);
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const before = event.detail.target.shoalOpen ?? [];
    event.detail.target.querySelectorAll("details").forEach((one, i) => { one.open ||= before[i] ?? false; });
    tellTimes(event.detail.target);
  });

  // The stream

  const live = document.getElementById("live");

  function hear(message) {
    if (message.kind) note(message.kind);
    if ("online" in message) {
      live.hidden = false;
      live.classList.toggle("on", message.online);
      live.textContent = message.online ? "live" : "connecting…";
    }
  }

  function listen(url, tell) {
    const source = new EventSource(url);
    source.onopen = () => tell({ online: true });
    source.onerror = () => {
      tell({ online: false });
      if (source.readyState === EventSource.CLOSED) setTimeout(() => listen(url, tell), 5000);
    };
    for (const kind of KINDS) source.addEventListener(kind, () => tell({ kind }));
  }

  // One tab listens and tells the others; when it closes, the lock goes to the next.
  function takeTurns(url) {
    const name = `shoal ${url}`;
    const channel = new BroadcastChannel(name);
    let online = null;
    channel.onmessage = ({ data }) => {
      if (!data.ask) hear(data);
      else if (online !== null) channel.postMessage({ online });
    };
    navigator.locks.request(name, () => {
      listen(url, (message) => {
        if ("online" in message) online = message.online;
        hear(message);
        channel.postMessage(message);
      });
      return new Promise(() => {}); // held until the tab closes
    });
    channel.postMessage({ ask: true });
  }

  // However many tabs there are, one connection: by a shared worker, or where a browser has none
  // by taking turns; only without either (and without TLS) each tab has its own.
  function connect() {
    const url = new URL(document.body.dataset.stream, location.href).href;
    addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });
    if (window.SharedWorker) {
      const { port } = new SharedWorker(document.body.dataset.worker);
      port.onmessage = (event) => hear(event.data);
      port.postMessage({ url });
      addEventListener("pagehide", () => port.postMessage({ leave: true }));
    } else if (navigator.locks && window.BroadcastChannel) takeTurns(url);
    else listen(url, hear);
  }

  // Times

  function ago(seconds) {
    // another clock may be a minute ahead of ours; what is further away lies in the future
    if (seconds < 2 && seconds > -60) return "just now";
    const size = Math.abs(seconds);
    const [count, unit] =
      size < 100 ? [size, "s"] : size < 6000 ? [size / 60, "min"]
      : size < 172800 ? [size / 3600, "h"] : [size / 86400, "days"];
    const words = `${Math.round(count)} ${unit}`;
    return seconds < 0 ? `in ${words}` : `${words} ago`;
  }

  function tellTimes(root) {
    for (const one of root.querySelectorAll("time")) {
      const words = ago((Date.now() - Date.parse(one.dateTime)) / 1000);
      if (one.textContent !== words) one.textContent = words;
    }
  }

  // Forms

  document.addEventListener("submit", (event) => {
    const question = event.target.dataset.confirm;
    if (question && !confirm(question)) event.preventDefault();
  });

  // Keys: `g` and a letter go to a page, `/` to its search, `n` to the next page, `?` lists them

  const keys = document.getElementById("keys");
  const GO_MS = 1500;
  let going = 0;

  function act(key) {
    if (going > Date.now() - GO_MS) {
      going = 0;
      return document.querySelector(`[data-key="${CSS.escape(key)}"]`);
    }
    if (key === "g") going = Date.now();
    if (key === "n") return document.querySelector('main a[rel="next"]');
    if (key === "?" && !keys.open) keys.showModal();
    return null;
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.isComposing) return;
    if (event.target.closest("input, select, textarea, [contenteditable]")) return;
    const search = event.key === "/" && document.querySelector('main input[type="search"]');
    if (search) {
      event.preventDefault();
      search.select();
      search.focus();
    } else act(event.key)?.click();
  });
  document.getElementById("keys-hint").hidden = false;

  tellTimes(document);
  setInterval(() => tellTimes(document), PERIOD_MS);
  document.querySelector("form[data-auto-submit]")?.requestSubmit();
  if (document.querySelector("[data-live]")) connect();
})();
