// Search, copy buttons, languages of samples, and navigation. Every page also works without this script.

const RESULTS_MAX = 8;
const TERMS_MAX = 8;
const BEFORE_CHARACTERS = 60;
const SNIPPET_CHARACTERS = 180;

const element = (name, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
};

// Search. The ranking is the same as in search.py.

let loading;
const load = () => {
  loading ??= fetch("/docs/search.json").then((response) => {
    if (!response.ok) throw new Error(response.status);
    return response.json();
  }).then(({ pages, sections }) => sections.map(([page, anchor, heading, text]) => ({
    link: `${pages[page][0]}#${anchor}`, page: pages[page][1], anchor, heading, text,
    lower: { heading: heading.toLowerCase(), page: pages[page][1].toLowerCase(), text: text.toLowerCase() },
  })));
  loading.catch(() => { loading = undefined; });
  return loading;
};

const score = ({ heading, page, text }, terms) => {
  let total = 0;
  for (const term of terms) {
    const found = 20 * heading.includes(term) + 5 * page.includes(term) + Math.min(text.split(term).length - 1, 4);
    if (!found) return 0;
    total += found;
  }
  const phrase = terms.join(" ");
  return total + 40 * (heading === phrase) + 10 * heading.includes(phrase) + 5 * text.includes(phrase);
};

const snippet = ({ text, lower }, terms) => {
  const at = [terms.join(" "), ...terms].map((each) => lower.text.indexOf(each)).find((each) => each >= 0) ?? 0;
  const start = at > BEFORE_CHARACTERS ? text.lastIndexOf(" ", at - BEFORE_CHARACTERS - 1) + 1 : 0;
  let end = Math.min(start + SNIPPET_CHARACTERS, text.length);
  if (end < text.length && text.slice(start, end).includes(" ")) end = text.lastIndexOf(" ", end - 1);
  const part = text.slice(start, end);
  const escaped = terms.map((each) => each.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length);
  const parts = part.split(new RegExp(`(${escaped.join("|")})`, "i"))
    .map((each, number) => (number % 2 ? element("mark", {}, each) : each));
  return [start > 0 ? "… " : "", ...parts, end < text.length ? " …" : ""];
};

const search = (index, query) => {
  const terms = query.toLowerCase().split(/\s+/).filter(Boolean).slice(0, TERMS_MAX);
  if (!terms.length) return [];
  return index.map((section) => ({ section, score: score(section.lower, terms) }))
    .filter((each) => each.score)
    .sort((a, b) => b.score - a.score)
    .slice(0, RESULTS_MAX)
    .map(({ section }) => ({ section, snippet: snippet(section, terms) }));
};

const field = document.querySelector(".search input");
const list = element("div", { id: "found", role: "listbox", ariaLabel: "Search results", hidden: true });
const status = element("p", { className: "skip", role: "status" });
field.form.append(list, status);
field.placeholder = "Search ( / )";
for (const [name, value] of Object.entries({
  role: "combobox", "aria-autocomplete": "list", "aria-controls": "found", "aria-expanded": "false", "aria-keyshortcuts": "/",
})) field.setAttribute(name, value);

let selected = -1;
const select = (number) => {
  selected = number;
  [...list.children].forEach((each, position) => each.setAttribute("aria-selected", position === number));
  const chosen = list.children[number];
  if (chosen) {
    field.setAttribute("aria-activedescendant", chosen.id);
    chosen.scrollIntoView({ block: "nearest" });
  } else field.removeAttribute("aria-activedescendant");
};

const show = (results, text) => {
  list.replaceChildren(...results.map(({ section, snippet }, number) => element(
    "a", { id: `found-${number}`, role: "option", href: section.link, tabIndex: -1 },
    element("strong", {}, section.heading), " ", element("span", { className: "page" }, section.page),
    element("small", {}, ...snippet),
  )));
  list.hidden = !results.length;
  field.setAttribute("aria-expanded", !list.hidden);
  status.textContent = text;
  status.className = text && list.hidden ? "empty" : "skip";
  select(-1);
};

const update = async () => {
  const query = field.value.trim();
  if (!query) return show([], "");
  let index;
  try {
    index = await load();
  } catch {
    return show([], "The search is not available. Press Enter to try again.");
  }
  if (query !== field.value.trim()) return;
  const results = search(index, query);
  show(results, results.length ? `${results.length} result${results.length > 1 ? "s" : ""}. Press Enter for all.` : "No results");
};

field.addEventListener("focus", () => load().catch(() => {}), { once: true });
field.addEventListener("input", update);
field.addEventListener("keydown", (event) => {
  const count = list.hidden ? 0 : list.children.length;
  if (event.key === "Escape") {
    if (list.hidden && !field.value) field.blur();
    field.value = "";
    show([], "");
  } else if (count && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
    const step = event.key === "ArrowDown" ? 1 : -1;
    select((selected + 1 + step + count + 1) % (count + 1) - 1);
  } else if (event.key === "Enter" && count && selected >= 0) {
    list.children[selected].click();
  } else return;
  event.preventDefault();
});
list.addEventListener("click", () => show([], ""));
field.form.addEventListener("focusout", (event) => {
  if (!field.form.contains(event.relatedTarget)) show([], "");
});
list.addEventListener("mousedown", (event) => event.preventDefault());
document.addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.closest("input, textarea, select, [contenteditable]")) return;
  event.preventDefault();
  field.focus();
  field.select();
});

// Copy buttons. Prompts and output of a console session are not copied.

const copy = async (pre, button) => {
  const clone = pre.cloneNode(true);
  for (const each of clone.querySelectorAll(".prompt, .output")) each.remove();
  const text = clone.textContent.trimEnd();
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers offer the clipboard on HTTPS and localhost only.
    const area = element("textarea", { value: text, className: "skip" });
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
    button.focus();
  }
  button.textContent = status.textContent = "Copied";
  setTimeout(() => {
    button.textContent = "Copy";
    status.textContent = "";
  }, 1500);
};

for (const pre of document.querySelectorAll("main pre")) {
  const button = element("button", { type: "button", className: "copy" }, "Copy");
  button.addEventListener("click", () => copy(pre, button));
  let box = pre.closest(".code");
  if (!box) {
    box = element("div", { className: "code" });
    pre.before(box);
    box.append(pre);
  }
  box.append(button);
}

// Samples: one language at a time, and the same one on every page.

const samples = [...document.querySelectorAll(".samples")];
const languages = (group) => [...group.children].filter((each) => each.localName === "details");
const choose = (language) => {
  for (const group of samples) {
    const all = languages(group);
    const chosen = all.find((each) => each.firstElementChild.textContent === language);
    if (chosen) for (const each of all) each.open = each === chosen;
  }
};
for (const group of samples) {
  group.addEventListener("click", (event) => {
    const summary = event.target.closest("summary");
    if (!summary || !languages(group).includes(summary.parentNode)) return;
    event.preventDefault();
    const before = summary.getBoundingClientRect().top;
    choose(summary.textContent);
    // Samples above may have changed their height.
    scrollBy({ top: summary.getBoundingClientRect().top - before, behavior: "instant" });
    try { localStorage.setItem("language", summary.textContent); } catch { /* Storage is blocked. */ }
  });
}
try { choose(localStorage.getItem("language")); } catch { /* Storage is blocked. */ }

// On wide screens, the menu and the table of contents are always open.

const openIfWide = (details, width) => {
  const wide = matchMedia(`(min-width: ${width})`);
  const update = () => { details.open = wide.matches; };
  wide.addEventListener("change", update);
  update();
};
const contents = document.querySelector("details.contents");
openIfWide(document.querySelector("details.menu"), "60rem");
if (contents) openIfWide(contents, "76rem");

// The entry of the current section in the table of contents.

const entries = new Map([...document.querySelectorAll(".contents a")].map((each) => [each.hash.slice(1), each]));
const headings = [...entries.keys()].map((each) => document.getElementById(each)).filter(Boolean);
let current;
const mark = () => {
  const above = headings.findLast((each) => each.getBoundingClientRect().top < 120) ?? headings[0];
  const entry = entries.get(above?.id);
  if (entry === current) return;
  current?.removeAttribute("aria-current");
  entry?.setAttribute("aria-current", "true");
  current = entry;
  const box = entry?.closest(".contents");
  if (box && box.scrollHeight > box.clientHeight) {
    box.scrollTop = entry.offsetTop - box.clientHeight / 2;
  }
};
if (headings.length) {
  addEventListener("scroll", mark, { passive: true });
  mark();
}
// On a narrow screen, the table of contents would cover the section.
contents?.addEventListener("click", (event) => {
  if (event.target.closest("a") && getComputedStyle(contents).position !== "sticky") contents.open = false;
});

// Follow an anchor that moved to another page.

const follow = async () => {
  const wanted = decodeURIComponent(location.hash.slice(1));
  if (!wanted || document.getElementById(wanted)) return;
  const moved = (await load()).find((each) => each.anchor === wanted);
  if (moved) location.replace(moved.link);
};
follow().catch(() => {});
