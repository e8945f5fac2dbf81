// Copy buttons and local times.
"use strict";

(() => {
  const told = (text) => {
    const place = document.getElementById("told");
    if (place) {
      place.textContent = text;
      setTimeout(() => { if (place.textContent === text) place.textContent = ""; }, 2500);
    }
  };

  // The formats of rendering.py, in the viewer's time zone.
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const two = (number) => String(number).padStart(2, "0");
  const day = (at) => `${months[at.getMonth()]} ${at.getDate()}`;
  const minute = (at) => `${two(at.getHours())}:${two(at.getMinutes())}`;
  const second = (at) => `${minute(at)}:${two(at.getSeconds())}`;
  const DAY_MS = 86_400_000;
  const isNear = (at, now) => Math.abs(now - at) < 180 * DAY_MS;
  const absolute = (at, now) => (isNear(at, now) ? `${day(at)}, ${second(at)}` : `${day(at)}, ${at.getFullYear()}, ${minute(at)}`);
  const UNITS = [[DAY_MS, "d"], [3_600_000, "h"], [60_000, "min"], [1000, "s"]];
  const relative = (at, now) => {
    const apart = Math.abs(now - at);
    if (apart >= 7 * DAY_MS) return isNear(at, now) ? day(at) : `${day(at)}, ${at.getFullYear()}`;
    const [size, unit] = UNITS.find(([each]) => apart >= each) ?? UNITS.at(-1);
    const text = `${Math.floor(apart / size)} ${unit}`;
    return at > now ? `in ${text}` : `${text} ago`;
  };
  const zone = (at) => new Intl.DateTimeFormat("en-US", { timeZoneName: "short" }).formatToParts(at).find((part) => part.type === "timeZoneName").value;
  const showTimes = (root, now) => {
    for (const each of root.querySelectorAll("time[datetime]")) {
      const at = new Date(each.dateTime);
      if (Number.isNaN(at.valueOf())) continue;
      const short = { day, minute }[each.dataset.short];
      each.textContent = short ? short(at) : "ago" in each.dataset ? relative(at, now) : absolute(at, now);
      if (!short) each.title = `${day(at)}, ${at.getFullYear()}, ${second(at)} ${zone(at)}`;
    }
    for (const each of root.querySelectorAll("[data-at]")) {
      const at = new Date(Number(each.dataset.at));
      const length = Number(each.dataset.length);
      const title = each.querySelector("title");
      if (length < DAY_MS) title.textContent = title.textContent.replace(/^.*?: /, `${day(at)}, ${minute(at)} to ${minute(new Date(at.valueOf() + length))}: `);
    }
  };
  // Relative times stay current while the page is visible.
  setInterval(() => { if (!document.hidden) showTimes(document, Date.now()); }, 15_000);

  // Format a time for a form field, with an offset from UTC in minutes.
  const field = (at, ahead) => new Date(at.valueOf() + ahead * 60000).toISOString().slice(0, 19);

  const prepare = (root, now = Date.now()) => {
    showTimes(root, now);
    for (const each of root.querySelectorAll("input[data-utc]")) {
      const at = new Date(`${each.value}Z`);
      if (!Number.isNaN(at.valueOf())) each.value = field(at, -at.getTimezoneOffset());
      each.parentNode.querySelector("[data-zone]").textContent = "local time";
      each.removeAttribute("data-utc");
      each.dataset.local = "";
    }
    for (const each of root.querySelectorAll("button.copy")) each.hidden = false;
    for (const each of root.querySelectorAll("details.menu")) {
      if (wide.matches) each.open = true;
    }
  };

  // On a wide screen, the menu has no summary and stays open.
  const wide = matchMedia("(min-width: 60rem)");
  wide.addEventListener("change", () => {
    for (const each of document.querySelectorAll("details.menu")) each.open = wide.matches;
  });

  const copy = async (button) => {
    const text = button.dataset.copy ?? button.parentNode.querySelector("pre").textContent;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      // Browsers provide the clipboard API only over HTTPS.
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

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const field = document.querySelector(".search input");
    if (!field) return;
    event.preventDefault();
    field.closest("details").open = true;
    field.focus();
    field.select();
  });

  // Form fields show local time, and the server expects UTC.
  document.addEventListener("formdata", (event) => {
    for (const each of event.target.querySelectorAll("input[data-local]")) {
      const at = new Date(each.value);
      if (!Number.isNaN(at.valueOf())) event.formData.set(each.name, field(at, 0));
    }
  });

  document.addEventListener("submit", (event) => {
    // Prevent a double submit.
    for (const each of event.target.querySelectorAll("button:not([type])")) setTimeout(() => { each.disabled = true; });
  });

  // Enable the buttons again when the browser restores a page from its cache.
  addEventListener("pageshow", () => {
    for (const each of document.querySelectorAll("button:disabled:not([type])")) each.disabled = false;
  });

  document.addEventListener("DOMContentLoaded", () => {
    prepare(document);
    // This page is the response to a form. Back and reload then get the page of the form instead of submitting it again.
    if (document.body.hasAttribute("data-submitted")) history.replaceState(null, "", location.href);
    const place = document.getElementById("zone");
    if (place) place.textContent = Intl.DateTimeFormat().resolvedOptions().timeZone;
  });

  window.uplift = { prepare };
})();
