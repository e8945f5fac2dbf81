"""The parts of a PostgreSQL URL. The URL may name several hosts.

`urllib.parse.urlsplit` supports only one host: recent Python releases reject an IPv6 address after the first host. The
syntax is libpq's: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

import re
from typing import Final, NamedTuple

_URL: Final = re.compile(
    r"(?P<scheme>[^:/?#]*)://(?:(?P<userinfo>[^/?#]*)@)?(?P<hosts>[^/?#@]*)"
    r"(?P<path>[^?#]*)(?:\?(?P<query>[^#]*))?(?:#(?P<fragment>.*))?",
    re.DOTALL,
)


class PostgresUrl(NamedTuple):
    """The parts of a URL as written, percent-encoded.

    If the URL contains no userinfo, `userinfo` is None. Other missing parts are empty strings.
    """

    scheme: str
    userinfo: str | None
    hosts: str
    """All hosts as `host[:port]`, separated by commas. Empty if the query names the hosts."""
    path: str
    query: str
    fragment: str

    def __str__(self) -> str:
        userinfo = "" if self.userinfo is None else f"{self.userinfo}@"
        query = f"?{self.query}" if self.query else ""
        fragment = f"#{self.fragment}" if self.fragment else ""
        return f"{self.scheme}://{userinfo}{self.hosts}{self.path}{query}{fragment}"


def split_postgres_url(text: str) -> PostgresUrl:
    """Split a PostgreSQL URL into its parts. Raises ValueError if the URL has no `scheme://`."""
    found = _URL.fullmatch(text)
    if found is None:
        raise ValueError("the text is not a URL")
    return PostgresUrl(
        found["scheme"],
        found["userinfo"],
        found["hosts"],
        found["path"],
        found["query"] or "",
        found["fragment"] or "",
    )
