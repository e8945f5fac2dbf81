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

  // The same length as the text from the server, so that the layout does not shift: "05 Nov 07:08:09" or "05 Nov 2025 07:08".
  const months = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
  const two = (number) => String(number).padStart(2, "0");
  const local = (at) => {
    const day = `${two(at.getDate())} ${months[at.getMonth()]}`;
    const minute = `${two(at.getHours())}:${two(at.getMinutes())}`;
    const near = Math.abs(Date.now() - at) < 180 * 86_400_000;
    return near ? `${day} ${minute}:${two(at.getSeconds())}` : `${day} ${at.getFullYear()} ${minute}`;
  };

  // Format a time for a form field, with an offset from UTC in minutes.
  const field = (at, ahead) => new Date(at.valueOf() + ahead * 60000).toISOString().slice(0, 19);

  const prepare = (root) => {
    for (const each of root.querySelectorAll("time[datetime]")) {
      const at = new Date(each.dateTime);
      if (!Number.isNaN(at.valueOf())) each.textContent = local(at);
    }
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
  });

  window.uplift = { prepare };
})();
