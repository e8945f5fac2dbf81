// Live pages: one stream per browser, and lists that wait while the visitor uses them.
"use strict";

(() => {
  const path = document.querySelector("[data-stream]")?.dataset.stream;
  if (!path) return;
  const region = () => document.getElementById("live");
  const fresh = document.querySelector(".fresh button");
  const state = document.getElementById("live-state");
  const LIST = ".table.cards";
  // The stream of a new page begins within this time. Statistics change later, so the stream reports them. However, a
  // delivery or a replay can end before the stream begins, and statistics can be 10 seconds late.
  const LATE_MS = 500;
  const UNFINISHED = ".status.pending, .status.running";
  // A stream that reconnects within this time is not reported as lost.
  const LOST_MS = 5000;
  const RETRY_MAX_MS = 30_000;

  const say = (kind, text) => {
    if (!state || state.dataset.kind === kind) return;
    state.dataset.kind = kind;
    state.textContent = text;
    if (kind === "out") {
      const link = document.createElement("a");
      link.href = `/sign-in?next=${encodeURIComponent(location.pathname + location.search)}`;
      link.textContent = "Sign in";
      state.append(" ", link);
    }
  };

  // Updates. A list waits while the pointer or the focus is inside, and other parts while an element in them is open.
  const hovers = matchMedia("(hover: hover)");
  const isEdited = (field) => (field.matches("select")
    ? [...field.options].some((each) => each.selected !== each.defaultSelected)
    : field.value !== field.defaultValue || field.checked !== field.defaultChecked);
  const isOpen = (part) => {
    const active = document.activeElement;
    const selection = getSelection();
    return (active?.matches("input, select, textarea, button:not(.copy)") && part.contains(active))
      || (String(selection) !== "" && part.contains(selection.anchorNode))
      || part.querySelector("details[open], [popover]:popover-open") !== null
      || [...part.querySelectorAll("input, select, textarea")].some(isEdited);
  };
  const isUsed = (list) => (hovers.matches && list.matches(":hover")) || list.contains(document.activeElement) || isOpen(list);
  const keys = (list) => [...list.querySelectorAll("tbody tr")].map((row) => row.querySelector("a[href]")?.getAttribute("href") ?? row.textContent);
  const MARKS = ["href", "data-copy", "popovertarget"];

  let latest = null;
  let waits = false;
  let count = 0;
  const replace = (old, next) => {
    const active = old.contains(document.activeElement) ? document.activeElement : null;
    const mark = active && MARKS.find((name) => active.hasAttribute(name));
    const value = mark && active.getAttribute(mark);
    const made = document.importNode(next, true);
    // The region itself stays, because htmx listens to it.
    const isRegion = old === region();
    if (isRegion) old.replaceChildren(...made.childNodes);
    else old.replaceWith(made);
    if (mark) [...(isRegion ? old : made).querySelectorAll(`[${mark}]`)].find((each) => each.getAttribute(mark) === value)?.focus({ preventScroll: true });
  };
  const patch = (old, next, force) => {
    if (old.isEqualNode(next)) return;
    const isElement = old.nodeType === Node.ELEMENT_NODE && next.nodeName === old.nodeName;
    if (isElement && old.matches(LIST) && next.matches(LIST)) {
      if (!force && isUsed(old)) {
        const known = new Set(keys(old));
        waits = true;
        count += keys(next).filter((key) => !known.has(key)).length;
      } else {
        replace(old, next);
      }
    } else if (isElement && !old.matches(LIST) && !next.matches(LIST) && old.childNodes.length === next.childNodes.length) {
      for (const { name } of [...old.attributes]) if (name !== "open" && !next.hasAttribute(name)) old.removeAttribute(name);
      for (const { name, value } of next.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
      const children = [...next.childNodes];
      [...old.childNodes].forEach((each, number) => patch(each, children[number], force));
    } else if (!force && isElement && (isOpen(old) || [old, ...old.querySelectorAll(LIST)].some((each) => each.matches(LIST) && isUsed(each)))) {
      waits = true;
    } else {
      replace(old, next);
    }
  };
  const update = (force) => {
    if (!latest || !region()) return;
    waits = false;
    count = 0;
    // Compute the relative times of both at the same moment, so that they do not count as a change.
    const now = Date.now();
    uplift.prepare(region(), now);
    uplift.prepare(latest, now);
    patch(region(), latest, force);
    fresh.hidden = !waits;
    fresh.textContent = count ? `${count} new` : "Update list";
    if (!waits) latest = null;
  };
  fresh.addEventListener("click", () => update(true));
  for (const name of ["pointerout", "focusout", "toggle", "selectionchange"]) {
    document.addEventListener(name, () => { if (waits) setTimeout(update, 100); }, true);
  }
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.target !== region() || !event.detail.shouldSwap) return;
    event.detail.shouldSwap = false;
    const { xhr } = event.detail;
    const page = new DOMParser().parseFromString(xhr.responseText, "text/html");
    latest = page.getElementById("live");
    if (latest) {
      if (state?.dataset.kind === "stale") lostTimer ? sayLost() : say("live", "Live");
      update();
    } else if (new URL(xhr.responseURL).pathname.startsWith("/sign-in")) {
      end();
      say("out", "You are signed out.");
    }
  });
  const sayLost = () => say("lost", "Connection lost. Reconnecting…");
  // A page that cannot be loaded, for example because the database is not available.
  let staleTimer = 0;
  const stale = (event) => {
    if (event.target !== region()) return;
    say("stale", "Not up to date. Updating again…");
    clearTimeout(staleTimer);
    staleTimer = setTimeout(() => refresh(2000), LOST_MS);
  };
  for (const name of ["htmx:responseError", "htmx:sendError"]) document.addEventListener(name, stale);
  const refresh = (within) => setTimeout(() => { if (region() && !document.hidden) htmx.trigger(region(), "live:change"); }, Math.random() * within);

  // The stream. The tab that holds the lock opens it, and the other tabs listen to the channel. A tab in the background
  // has neither. Without locks (HTTP on another host), each visible tab opens its own stream.
  let channel = null;
  let source = null;
  let giveUp = null;
  let retry = 0;
  let retryTimer = 0;
  let lostTimer = 0;
  let streamed = false;
  const hear = (told) => {
    if (told === "hello") {
      if (source) channel.postMessage(source.readyState === EventSource.OPEN ? "here" : "lost");
    } else if (told === "open" || told === "here") {
      const mayMiss = performance.now() > LATE_MS || region()?.querySelector(UNFINISHED);
      if ((told === "open" && streamed) || (!streamed && mayMiss) || state?.dataset.kind === "lost") refresh(2000);
      streamed = true;
      clearTimeout(lostTimer);
      lostTimer = 0;
      if (state?.dataset.kind !== "stale") say("live", "Live");
    } else if (told === "change") {
      refresh(source ? 0 : 1000);
    } else {
      if (told === "closed") refresh(0);
      lostTimer ||= setTimeout(sayLost, LOST_MS);
    }
  };
  const tell = (told) => {
    channel.postMessage(told);
    hear(told);
  };
  const open = () => {
    source = new EventSource(path);
    source.onopen = () => { retry = 0; tell("open"); };
    source.addEventListener("change", () => tell("change"));
    source.onerror = () => {
      // After a response without a stream, such as the sign-in page, the browser does not reconnect.
      const isClosed = source.readyState === EventSource.CLOSED;
      if (isClosed) {
        retry = Math.min(RETRY_MAX_MS, (retry || 1000) * 2);
        retryTimer = setTimeout(open, retry * (0.5 + Math.random() / 2));
      }
      tell(isClosed ? "closed" : "lost");
    };
  };
  const begin = () => {
    if (channel || document.hidden) return;
    channel = new BroadcastChannel(`uplift ${path}`);
    channel.onmessage = ({ data }) => hear(data);
    if (navigator.locks) {
      const wish = new AbortController();
      giveUp = () => wish.abort();
      const hold = () => new Promise((release) => { giveUp = release; open(); });
      navigator.locks.request(`uplift ${path}`, { signal: wish.signal }, hold).catch(() => {});
    } else {
      open();
    }
    channel.postMessage("hello");
  };
  const end = () => {
    clearTimeout(retryTimer);
    clearTimeout(lostTimer);
    clearTimeout(staleTimer);
    lostTimer = 0;
    source?.close();
    source = null;
    giveUp?.();
    giveUp = null;
    channel?.close();
    channel = null;
  };
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) return end();
    begin();
    refresh(0);
  });
  addEventListener("pagehide", end);
  addEventListener("pageshow", (event) => { if (event.persisted) { begin(); refresh(0); } });
  begin();
})();
