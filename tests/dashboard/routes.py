"""Every place of an application, and every form of a page: a test that walks them forgets none that is added."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser

from starlette.routing import BaseRoute, Mount, Route

_PARAMETER = re.compile(r"\{(\w+)(?::\w+)?\}")


@dataclass(frozen=True, order=True)
class Place:
    """A method and a path with parameters, `/accounts/{account}/events/{event}`."""

    path: str
    method: str

    @property
    def parameters(self) -> tuple[str, ...]:
        """The names in braces, in their order."""
        return tuple(_PARAMETER.findall(self.path))

    def at(self, ids: Mapping[str, str]) -> str:
        """The path with ids put in. Fails where none is given: whoever adds a parameter adds it to the walks."""
        missing = [name for name in self.parameters if name not in ids]
        assert not missing, f"{self}: the walks know no id for {', '.join(missing)}"
        return _PARAMETER.sub(lambda found: ids[found[1]], self.path)

    def __str__(self) -> str:
        return f"{self.method} {self.path}"


def places(routes: Iterable[BaseRoute], prefix: str = "") -> list[Place]:
    """Where an application answers, in order; files that are served as they are do not count."""
    found: set[Place] = set()
    for route in routes:
        if isinstance(route, Mount):
            found.update(places(route.routes, prefix + route.path))
        else:
            assert isinstance(route, Route), f"the walks know no {type(route).__name__}"
            found.update(Place(prefix + route.path, method) for method in (route.methods or {"GET"}) - {"HEAD"})
    return sorted(found)


@dataclass(frozen=True)
class Form:
    """A form as it stands in a page: where it goes, and the fields it would send untouched."""

    method: str
    action: str
    fields: dict[str, str] = field(default_factory=dict)


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []
        self.links: list[str] = []
        self._inside: Form | None = None

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

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._inside = None


def forms(html: str) -> list[Form]:
    """The forms of a page."""
    reader = _Reader()
    reader.feed(html)
    return reader.forms


def links(html: str) -> list[str]:
    """Where the links of a page lead."""
    reader = _Reader()
    reader.feed(html)
    return reader.links
