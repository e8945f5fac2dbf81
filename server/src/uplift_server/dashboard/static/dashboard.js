// What pages cannot do without scripts: copy, the visitor's own time, and being fetched anew in peace.
"use strict";

(() => {
  const told = (text) => {
    const place = document.getElementById("told");
    if (place) {
      place.textContent = text;
      setTimeout(() => { if (place.textContent === text) place.textContent = ""; }, 2500);
    }
  };

  // As many characters as the server wrote, so that nothing moves: "05 Nov 07:08:09", and of long ago "05 Nov 2025 07:08".
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const two = (number) => String(number).padStart(2, "0");
  const local = (at) => {
    const day = `${two(at.getDate())} ${months[at.getMonth()]}`;
    const minute = `${two(at.getHours())}:${two(at.getMinutes())}`;
    const near = Math.abs(Date.now() - at) < 180 * 86_400_000;
    return near ? `${day} ${minute}:${two(at.getSeconds())}` : `${day} ${at.getFullYear()} ${minute}`;
  };

  // An instant as fields take it, so many minutes ahead of UTC.
  const field = (at, ahead) => new Date(at.valueOf() + ahead * 60000).toISOString().slice(0, 19);

  const prepare = (root) => {
    for (const each of root.querySelectorAll("time[datetime]")) {
      const at = new Date(each.dateTime);
      if (!Number.isNaN(at.valueOf())) each.textContent = local(at);
    }
    for (const each of root.querySelectorAll("input[data-utc]")) {
      const at = new Date(`${each.value}Z`);
      if (!Number.isNaN(at.valueOf())) each.value = field(at, -at.getTimezoneOffset());
      each.parentNode.querySelector("[data-zone]").textContent = "your time";
      each.removeAttribute("data-utc");
      each.dataset.local = "";
    }
    for (const each of root.querySelectorAll("button.copy")) each.hidden = false;
    for (const each of root.querySelectorAll("details.menu")) {
      if (wide.matches) each.open = true;
    }
  };

  // Where there is room the menu has no summary to open it by.
  const wide = matchMedia("(min-width: 60rem)");
  wide.addEventListener("change", () => {
    for (const each of document.querySelectorAll("details.menu")) each.open = wide.matches;
  });

  const copy = async (button) => {
    const text = button.dataset.copy ?? button.parentNode.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Without TLS browsers offer no clipboard.
      const area = document.createElement("textarea");
      area.value = text;
      area.className = "skip";
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
      button.focus();
    }
    button.classList.add("copied");
    setTimeout(() => button.classList.remove("copied"), 1200);
    told("Copied");
  };

  document.addEventListener("click", (event) => {
    const button = event.target.closest("button.copy");
    if (button) copy(button);
  });

  // Fields show the visitor's own time, and pages take UTC.
  document.addEventListener("formdata", (event) => {
    for (const each of event.target.querySelectorAll("input[data-local]")) {
      const at = new Date(each.value);
      if (!Number.isNaN(at.valueOf())) event.formData.set(each.name, field(at, 0));
    }
  });

  document.addEventListener("submit", (event) => {
    // A second press must not do it twice.
    for (const each of event.target.querySelectorAll("button:not([type])")) setTimeout(() => { each.disabled = true; });
  });

  // Pages that come out of the browser's memory have their buttons back.
  addEventListener("pageshow", () => {
    for (const each of document.querySelectorAll("button:disabled:not([type])")) each.disabled = false;
  });

  document.addEventListener("DOMContentLoaded", () => prepare(document));

  // What the keyboard is at has it again when its region has come anew: a link, or a button that copies.
  const MARKS = ["href", "data-copy"];
  let held = null;
  document.addEventListener("htmx:beforeSwap", (event) => {
    const active = document.activeElement;
    const mark = event.target.contains(active) ? MARKS.find((name) => active.hasAttribute(name)) : undefined;
    held = mark ? [mark, active.getAttribute(mark)] : null;
  });
  document.addEventListener("htmx:afterSwap", (event) => {
    const place = event.detail.elt.parentNode || document;
    prepare(place);
    if (!held) return;
    const [mark, value] = held;
    held = null;
    [...place.querySelectorAll(`[${mark}]`)].find((each) => each.getAttribute(mark) === value)?.focus({ preventScroll: true });
  });

  // What somebody has opened, chosen or is typing in stays as it is: then the page waits until that is over.
  let missed = false;
  document.addEventListener("htmx:beforeRequest", (event) => {
    const region = event.target;
    if (region.id !== "live") return;
    const active = region.contains(document.activeElement) ? document.activeElement : null;
    const busy = active?.matches("input, select, textarea, button:not(.copy)");
    const selected = String(getSelection()) !== "" && region.contains(getSelection().anchorNode);
    missed = busy || selected || region.querySelector("details[open]:not(.menu)") !== null || document.hidden;
    if (missed) event.preventDefault();
  });
  // A stream reports only later changes. After one that was cut or began late, the page loads again. Statistics follow a
  // delivery by a second or more, so a stream that begins sooner reports it. The random wait spreads the pages of a server
  // that restarts.
  const STREAM_LATE_MS = 500;
  let streamed = false;
  document.addEventListener("htmx:sseOpen", () => {
    const region = document.getElementById("live");
    if (region && (streamed || performance.now() > STREAM_LATE_MS)) setTimeout(() => htmx.trigger(region, "sse:change"), Math.random() * 2000);
    streamed = true;
  });
  const catchUp = () => {
    const region = document.getElementById("live");
    if (missed && region) htmx.trigger(region, "sse:change");
  };
  for (const name of ["visibilitychange", "selectionchange"]) document.addEventListener(name, catchUp);
  for (const name of ["focusout", "toggle"]) document.addEventListener(name, () => setTimeout(catchUp), true);
})();
