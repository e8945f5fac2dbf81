"""The facts of a notice, made fit to be told.

URLs, descriptions, account names and parts of the causes are other people's texts: they are made printable and cut
here, and whatever may hold a secret is taken out. A link that lets somebody in gets its secret part here, which is kept
nowhere.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from uplift_server.core.security.tokens import Purpose, reset_token, token
from uplift_server.core.texts import printable

HOST_CHARACTERS_SHOWN_MAX: Final = 80
URL_CHARACTERS_SHOWN_MAX: Final = 300
TEXT_CHARACTERS_SHOWN_MAX: Final = 300
SENTENCE_CHARACTERS_SHOWN_MAX: Final = 1_000
NAME_CHARACTERS_SHOWN_MAX: Final = 120
"""Of what an endpoint is called in a subject: host, path and description."""
PATH_CHARACTERS_SHOWN_MAX: Final = 40
_DESCRIPTION_CHARACTERS_LEAST: Final = 12

_USERINFO = re.compile(r"(?<=//)[^/\s@?#]*@")
_QUERY = re.compile(r"[?#]\S+?(?=[,.;]?(?:\s|$))")
# A subject is read over shoulders: what may be a token, a code or a parameter is left out of its path.
_TOKEN: Final = re.compile(r"[^/]*[=;@][^/]*|(?=[^/]*\d)[^/]{16,}|[^/]{32,}")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


class EmailValues:
    """The facts of a notice as texts that can be shown."""

    def __init__(self, facts: Mapping[str, object], public_url: str, link_key: bytes) -> None:
        """`public_url` is where this server is reached; from `link_key` follow the secret parts of links."""
        self._facts = facts
        self._public_url = public_url
        self._link_key = link_key

    def text(self, name: str) -> str:
        """A text of others, in one line."""
        return _shown(self._raw(name), TEXT_CHARACTERS_SHOWN_MAX)

    def sentence(self, name: str) -> str:
        """A sentence of cause or remedy, which may quote an address, such as the target of a redirect."""
        return _shown(_without_secrets(self._raw(name)), SENTENCE_CHARACTERS_SHOWN_MAX)

    def instant(self, name: str) -> str:
        """An instant in words; empty where it is unknown."""
        value = self._facts.get(name)
        return instant_words(value) if isinstance(value, int) else ""

    def number(self, name: str) -> int:
        """A count; 0 where there is none."""
        value = self._facts.get(name)
        return value if isinstance(value, int) else 0

    @property
    def url(self) -> str:
        """The endpoint's URL without what may let somebody in."""
        return _shown(_without_secrets(self._raw("url")), URL_CHARACTERS_SHOWN_MAX)

    @property
    def host(self) -> str:
        """Host and port of the endpoint, by which its owner knows it."""
        try:
            netloc = urlsplit(self._raw("url")).netloc
        except ValueError:
            netloc = ""
        return _shown(netloc.rpartition("@")[2], HOST_CHARACTERS_SHOWN_MAX) or "unknown host"

    @property
    def name(self) -> str:
        """What tells the endpoint from others of its host: the path, and the description as far as there is room."""
        place = f"{self.host}{self._path}"
        room = NAME_CHARACTERS_SHOWN_MAX - len(place) - len(" ()")
        description = self.text("description")
        if not description or room < _DESCRIPTION_CHARACTERS_LEAST:
            return place
        return f"{place} ({_shown(description, room)})"

    @property
    def _path(self) -> str:
        """The path of the URL, without a final slash; a long one without its middle."""
        try:
            path = urlsplit(self._raw("url")).path
        except ValueError:
            return ""
        path = printable("/".join(_TOKEN.sub("…", each) for each in path.split("/"))).rstrip("/")
        if len(path) <= PATH_CHARACTERS_SHOWN_MAX:
            return path
        half = PATH_CHARACTERS_SHOWN_MAX // 2
        return f"{path[:half]}…{path[-half + 1 :]}"

    @property
    def causes(self) -> tuple[tuple[str, str], ...]:
        """Each outcome with how many endpoints fail so, the most frequent first."""
        causes = self._facts.get("causes")
        counts = {str(name): n for name, n in causes.items() if isinstance(n, int)} if isinstance(causes, dict) else {}
        ordered = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
        return tuple((_shown(name, 40).replace("_", " ").capitalize(), counted(n, "endpoint")) for name, n in ordered)

    def endpoint_details(self, *others: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """The endpoint's particulars, and others where they have a value."""
        rows = (
            ("Endpoint", self.text("endpoint")),
            ("URL", self.url),
            ("Description", self.text("description")),
            ("Account", self.text("account")),
            *others,
        )
        return tuple(row for row in rows if row[1])

    @property
    def endpoint_link(self) -> tuple[str, str]:
        """Where the endpoint's page is."""
        return "Open the endpoint", f"{self._public_url}/endpoints/{self.text('endpoint')}"

    @property
    def home_link(self) -> tuple[str, str]:
        """Where the server is."""
        return "Open Uplift Webhooks", self._public_url

    @property
    def invitation_url(self) -> str:
        """Where an invitation is accepted."""
        made = token(self._link_key, Purpose.INVITATION, bytes.fromhex(self._raw("invitation")))
        return Purpose.INVITATION.url(self._public_url, made)

    @property
    def reset_url(self) -> str:
        """Where a new password is set."""
        person, expires_at = bytes.fromhex(self._raw("person")), self.number("expires_at")
        made = reset_token(self._link_key, person, expires_at=expires_at, mark=self._raw("mark"))
        return Purpose.RESET.url(self._public_url, made)

    @property
    def server(self) -> str:
        """This server, as people know it."""
        return self._public_url

    @property
    def contact_closing(self) -> str:
        """Why a contact of an account gets a mail."""
        return f"You get this mail because you are a contact of {self.text('account') or 'the account'}."

    def _raw(self, name: str) -> str:
        value = self._facts.get(name)
        return "" if value is None else str(value)


def instant_words(ms: int) -> str:
    """`21 November 2026, 14:05 UTC` of a Unix time in ms."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{at.day} {_MONTHS[at.month - 1]} {at.year}, {at:%H:%M} UTC"


def counted(count: int, noun: str) -> str:
    """`1 endpoint`, `2 endpoints`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shown(text: str, characters_max: int) -> str:
    """A text of others in one printable line."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"


def _without_secrets(text: str) -> str:
    """A text without the parts of its URLs that may let somebody in: user, password, query and fragment."""
    return _QUERY.sub("?…", _USERINFO.sub("", text))
