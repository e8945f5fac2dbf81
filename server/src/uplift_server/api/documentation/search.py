"""The documentation search: an index of all sections, and the ranking of results.

In the browser, `script.js` searches the same index and ranks the results in the same way.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from html.parser import HTMLParser
from typing import Final

QUERY_CHARACTERS_MAX: Final = 100
TERMS_MAX: Final = 8
RESULTS_MAX: Final = 30

_HEADINGS: Final = frozenset({"h1", "h2", "h3", "h4"})
_INLINE: Final = frozenset({"a", "code", "em", "strong", "span", "wbr"})
_BEFORE_CHARACTERS: Final = 60
_SNIPPET_CHARACTERS: Final = 180


@dataclass(slots=True)
class Section:
    """A heading and the text below it, up to the next heading."""

    address: str
    page: str
    """The title of the page."""
    anchor: str
    heading: str = ""
    text: str = ""

    @property
    def link(self) -> str:
        """The page's address, with the section's anchor."""
        return f"{self.address}#{self.anchor}"


@dataclass(frozen=True, slots=True)
class Result:
    """A section that matches a query, and the text around the match as HTML."""

    section: Section
    snippet: str


def sections(address: str, page: str, html: str) -> list[Section]:
    """Split a page into its sections."""
    reader = _Reader(address, page)
    reader.feed(html)
    reader.close()
    for each in reader.found:
        each.heading = " ".join(each.heading.split())
        each.text = " ".join(each.text.split())
    return reader.found


def find(index: Iterable[Section], query: str) -> list[Result]:
    """Return up to RESULTS_MAX sections that contain every term of a query, best matches first."""
    terms = query[:QUERY_CHARACTERS_MAX].lower().split()[:TERMS_MAX]
    if not terms:
        return []
    ranked = [(score, each) for each in index if (score := _score(each, terms))]
    ranked.sort(key=lambda each: -each[0])
    return [Result(each, _snippet(each.text, terms)) for _, each in ranked[:RESULTS_MAX]]


def _score(section: Section, terms: Sequence[str]) -> int:
    """Return the score of a section, or 0 if the section lacks a term.

    A match in a heading scores higher than a match in a page title, and a match in a title scores higher than a match
    in text.
    """
    heading, page, text = section.heading.lower(), section.page.lower(), section.text.lower()
    total = 0
    for term in terms:
        score = 20 * (term in heading) + 5 * (term in page) + min(text.count(term), 4)
        if not score:
            return 0
        total += score
    phrase = " ".join(terms)
    return total + 40 * (heading == phrase) + 10 * (phrase in heading) + 5 * (phrase in text)


def _snippet(text: str, terms: Sequence[str]) -> str:
    lower = text.lower()
    at = next((found for each in (" ".join(terms), *terms) if (found := lower.find(each)) >= 0), 0)
    start = lower.rfind(" ", 0, at - _BEFORE_CHARACTERS) + 1 if at > _BEFORE_CHARACTERS else 0
    end = start + _SNIPPET_CHARACTERS
    end = len(text) if end >= len(text) else text.rfind(" ", start, end) if " " in text[start:end] else end
    part = text[start:end]
    pattern = "|".join(sorted(map(re.escape, terms), key=len, reverse=True))
    marked = "".join(
        f"<mark>{escape(each)}</mark>" if number % 2 else escape(each)
        for number, each in enumerate(re.split(f"({pattern})", part, flags=re.IGNORECASE))
    )
    return f"{'… ' * (start > 0)}{marked}{' …' * (end < len(text))}"


class _Reader(HTMLParser):
    """HTML parser that collects the sections of a page."""

    def __init__(self, address: str, page: str) -> None:
        super().__init__()
        self.found: list[Section] = []
        self._address = address
        self._page = page
        self._in_heading = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begin a section at a heading with an anchor."""
        anchor = dict(attrs).get("id")
        if tag in _HEADINGS and anchor:
            self.found.append(Section(self._address, self._page, anchor))
            self._in_heading = True
        self._part(tag)

    def handle_endtag(self, tag: str) -> None:
        self._in_heading = self._in_heading and tag not in _HEADINGS
        self._part(tag)

    def handle_data(self, data: str) -> None:
        if not self.found:
            return
        if self._in_heading:
            self.found[-1].heading += data
        else:
            self.found[-1].text += data

    def _part(self, tag: str) -> None:
        if tag not in _INLINE:
            self.handle_data(" ")
