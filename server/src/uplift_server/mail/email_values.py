"""The values of a notification, as safe strings for an email.

URLs, descriptions, account names and parts of causes come from users or receivers. This module makes these strings
printable, truncates them, and removes possible secrets. It also creates the secret parts of links, which the server
never stores.
"""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import urlsplit

from uplift_server.core.operations.fleet import named_causes
from uplift_server.core.people.notifications import endpoint_count
from uplift_server.core.security.tokens import Purpose, reset_token, token
from uplift_server.core.texts import printable

HOST_CHARACTERS_SHOWN_MAX: Final = 80
URL_CHARACTERS_SHOWN_MAX: Final = 300
TEXT_CHARACTERS_SHOWN_MAX: Final = 300
SENTENCE_CHARACTERS_SHOWN_MAX: Final = 1_000
NAME_CHARACTERS_SHOWN_MAX: Final = 120
"""Maximum length of an endpoint's name in an email subject, in characters.

The name contains the host, the path and, if it fits, the description.
"""
PATH_CHARACTERS_SHOWN_MAX: Final = 40
_DESCRIPTION_CHARACTERS_LEAST: Final = 12

_USERINFO = re.compile(r"(?<=//)[^/\s@?#]*@")
_URL: Final = re.compile(r"\b(?:[a-z][a-z0-9+.-]{1,20}:/|www\.)[^\s\"'<>]+", re.IGNORECASE)
_QUERY = re.compile(r"[?#]\S+?(?=[,.;]?(?:\s|$))")
# People other than the recipient may see a subject, so it omits parts of a path that may be tokens, codes or
# parameters.
_TOKEN: Final = re.compile(r"[^/]*[=;@][^/]*|(?=[^/]*\d)[^/]{16,}|[^/]{32,}")
_MONTHS: Final = (
    "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November",
    "December",
)  # fmt: skip


class EmailValues:
    """Converts the values of a notification to safe strings."""

    def __init__(self, values: Mapping[str, object], public_url: str, link_key: bytes) -> None:
        """Wrap the values of one notification. `public_url` is the URL of this server.

        `link_key` is the key from which the secret parts of links are derived.
        """
        self._values = values
        self._public_url = public_url
        self._link_key = link_key

    def text(self, name: str) -> str:
        """Return a value from the notification as one line. `name` is the name of the value."""
        return _shown(self._raw(name), TEXT_CHARACTERS_SHOWN_MAX)

    def sentence(self, name: str) -> str:
        """Return a cause or a fix from the notification as one line. `name` is the name of the value.

        The method removes secrets from the URLs in the text, such as redirect targets.
        """
        return _shown(_without_secrets(self._raw(name)), SENTENCE_CHARACTERS_SHOWN_MAX)

    @property
    def response(self) -> str:
        """The first line of the receiver's response, in quotes.

        URLs are replaced by `[URL]`, so that receivers cannot add links to emails.
        """
        line = _URL.sub("[URL]", self._raw("response"))
        return f"“{_shown(line, TEXT_CHARACTERS_SHOWN_MAX)}”" if line else ""

    def time(self, name: str) -> str:
        """Return a time from the notification as text, or an empty string if the time is unknown."""
        value = self._values.get(name)
        return format_time(value) if isinstance(value, int) else ""

    def number(self, name: str) -> int:
        """Return a count from the notification, or 0 if the notification does not contain the count."""
        value = self._values.get(name)
        return value if isinstance(value, int) else 0

    @property
    def url(self) -> str:
        """The endpoint's URL, without the parts that may contain secrets."""
        return _shown(_without_secrets(self._raw("url")), URL_CHARACTERS_SHOWN_MAX)

    @property
    def host(self) -> str:
        """The endpoint's host and port."""
        try:
            netloc = urlsplit(self._raw("url")).netloc
        except ValueError:
            netloc = ""
        return _shown(netloc.rpartition("@")[2], HOST_CHARACTERS_SHOWN_MAX) or "unknown host"

    @property
    def name(self) -> str:
        """The endpoint's name: its host and path, followed by the description if there is enough space."""
        name = f"{self.host}{self._path}"
        space = NAME_CHARACTERS_SHOWN_MAX - len(name) - len(" ()")
        description = self.text("description")
        if not description or space < _DESCRIPTION_CHARACTERS_LEAST:
            return name
        return f"{name} ({_shown(description, space)})"

    @property
    def _path(self) -> str:
        """The URL's path, without a trailing slash. `…` replaces possible tokens and the middle of a long path."""
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
    def causes(self) -> str:
        """The most frequent failure causes, each with the number of affected endpoints."""
        causes = self._values.get("causes")
        known = {str(title): n for title, n in causes.items() if isinstance(n, int)} if isinstance(causes, dict) else {}
        return _shown(named_causes(known), TEXT_CHARACTERS_SHOWN_MAX)

    def endpoint_details(self, *others: tuple[str, str]) -> tuple[tuple[str, str], ...]:
        """Return rows with a label and a value that describe the endpoint, followed by the rows in `others`.

        Omit rows without a value.
        """
        rows = (
            ("Endpoint", self.text("endpoint")),
            ("URL", self.url),
            ("Description", self.text("description")),
            ("Account", self.text("account")),
            *others,
        )
        return tuple(row for row in rows if row[1])

    @property
    def endpoints(self) -> tuple["EmailValues", ...]:
        """The values for each endpoint in the notification."""
        others = self._values.get("others")
        listed = [each for each in others if isinstance(each, dict)] if isinstance(others, list) else []
        return (self, *(EmailValues(each, self._public_url, self._link_key) for each in listed))

    @property
    def endpoint_count(self) -> int:
        """The number of affected endpoints. The notification may contain the values of only some of them."""
        return endpoint_count(self._values)

    @property
    def endpoint_link(self) -> tuple[str, str]:
        """The label and URL of the link to the endpoint's page."""
        return "View endpoint", f"{self._public_url}/endpoints/{self.text('endpoint')}"

    @property
    def home_link(self) -> tuple[str, str]:
        """The label and URL of the link to the dashboard."""
        return "Open dashboard", self._public_url

    @property
    def invitation_url(self) -> str:
        """The URL of the page where the reader accepts the invitation."""
        link_token = token(self._link_key, Purpose.INVITATION, bytes.fromhex(self._raw("invitation")))
        return Purpose.INVITATION.url(self._public_url, link_token)

    @property
    def reset_url(self) -> str:
        """The URL of the page where the reader sets a new password."""
        person, expires_at = bytes.fromhex(self._raw("person")), self.number("expires_at")
        link_token = reset_token(self._link_key, person, expires_at=expires_at, mark=self._raw("mark"))
        return Purpose.RESET.url(self._public_url, link_token)

    @property
    def server(self) -> str:
        """The URL of this server."""
        return self._public_url

    @property
    def profile_url(self) -> str:
        """The URL of the reader's profile page."""
        return f"{self._public_url}/you"

    @property
    def contact_closing(self) -> str:
        """The closing line for a contact. It states why the contact receives the email."""
        return f"You received this email because you are a contact for {self.text('account') or 'the account'}."

    def _raw(self, name: str) -> str:
        value = self._values.get(name)
        return "" if value is None else str(value)


def format_time(ms: int) -> str:
    """Format a Unix time in ms as `November 21, 2026 at 14:05 UTC`."""
    at = datetime.fromtimestamp(ms // 1000, UTC)
    return f"{_MONTHS[at.month - 1]} {at.day}, {at.year} at {at:%H:%M} UTC"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, such as `1 endpoint` or `2 endpoints`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _shown(text: str, characters_max: int) -> str:
    """Return a string as one printable line of at most `characters_max` characters."""
    line = printable(" ".join(text.split()))
    return line if len(line) <= characters_max else f"{line[: characters_max - 1]}…"


def _without_secrets(text: str) -> str:
    """Remove the user name and password from the URLs in a string. Replace the query and fragment with `?…`."""
    return _QUERY.sub("?…", _USERINFO.sub("", text))
