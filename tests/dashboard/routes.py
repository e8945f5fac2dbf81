"""Paths, forms and links of pages, for tests that visit all of them."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from uplift_server.dashboard.routes import Page

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


def parameters(page: Page) -> tuple[str, ...]:
    """Return the parameters of the path, in order."""
    return tuple(_PARAMETER.findall(page.path))


def path_with_ids(page: Page, ids: Mapping[str, str], path: str | None = None) -> str:
    """Fill IDs into the path of a page, or into another path with the same parameters. Fail if an ID is missing."""
    missing = [name for name in parameters(page) if name not in ids]
    assert not missing, f"{page.method} {page.path}: no ID for {', '.join(missing)}"
    return _PARAMETER.sub(lambda found: ids[found[1]], page.path if path is None else path)


@dataclass(frozen=True)
class Form:
    """A form of a page, with the values that an unchanged form sends."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self._inside: Form | None = None
        self._select: str | None = None
        self._is_first = True

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        if tag == "form":
            self._inside = Form(given.get("method", "get").upper(), given.get("action", ""))
            self.forms.append(self._inside)
        elif tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag in {"input", "textarea", "select"} and self._inside and "name" in given:
            unchecked = given.get("type") in {"checkbox", "radio"} and "checked" not in given
            if not unchecked:
                self._inside.fields[given["name"]] = given.get("value", "")
            self._select, self._is_first = given["name"] if tag == "select" else None, True
        elif tag == "option" and self._inside and self._select:
            # A browser sends the selected option, or the first one.
            if "selected" in given or self._is_first:
                self._inside.fields[self._select] = given.get("value", "")
            self._is_first = False

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = None


def forms(html: str) -> list[Form]:
    """Return the forms of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.forms


def links(html: str) -> list[str]:
    """Return the targets of the links of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.links
