"""Parsers for setting values. The parsers raise InvalidValue.

Each parser is as strict as possible without network access. `doctor` checks the values over the network.
"""

import base64
import binascii
import os
import re
from collections.abc import Callable, Mapping, Sequence
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, unquote, urlsplit

from uplift_server.core.durations import parse_duration
from uplift_server.core.http.forwarding import parse_networks
from uplift_server.core.http.source_addresses import SourceAddress
from uplift_server.core.ids import ACCOUNT, parse_prefixed
from uplift_server.core.operations.postgres_urls import split_postgres_url
from uplift_server.core.own_data import is_uid
from uplift_server.core.people.accounts import check_email
from uplift_server.core.people.mail_settings import parse_mail_server, parse_mailbox
from uplift_server.core.texts import is_visible_ascii

DELAYS_MAX: Final = 100
SQLITE: Final = "sqlite:///"
POSTGRESQL: Final = ("postgresql://", "postgres://")
POSTGRESQL_PARAMETERS: Final = (
    "host", "port", "user", "password", "sslmode", "sslrootcert", "sslcert", "sslkey", "target_session_attrs",
    "pooler",
)  # fmt: skip
# https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS
_SESSIONS: Final = ("any", "primary", "read-write")  # The other values select read-only or standby servers.
_SSLMODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_CODES: Final = "percent-encode characters such as @, / and # in user and password (%40, %2F, %23)"

_BRACKETED: Final = re.compile(r"\[([^]]*)\](:.*)?")
_ORIGIN: Final = re.compile(r"https?://(\*\.)?[A-Za-z0-9.-]+(:[0-9]{1,5})?")
ENCRYPTION_KEY_BYTES: Final = 32
MAKE_KEY: Final = "create a key with: head -c 32 /dev/urandom | base64"


class InvalidValue(ValueError):
    """The value of a setting is not valid. `remedy` says how to fix the value."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.remedy = remedy


def frame_ancestors(text: str) -> str:
    """Parse the sites that can show the dashboard in a frame: a Content-Security-Policy list of origins.

    The origins are separated by spaces. `*.` matches every subdomain of a host.
    """
    origins = text.split()
    if not origins or not all(_ORIGIN.fullmatch(each) for each in origins):
        raise InvalidValue(
            "is not a list of origins",
            "use origins separated by spaces, such as https://app.example.com https://*.example.com",
        )
    return " ".join(origins)


def duration(low: str, high: str) -> Callable[[str], int]:
    """Return a parser for durations from `low` to `high`. The parser returns milliseconds."""
    low_ms, high_ms = parse_duration(low), parse_duration(high)

    def parse(text: str) -> int:
        try:
            value = parse_duration(text)
        except ValueError as error:
            raise InvalidValue("is not a duration", f"use a duration with a unit, from {low} to {high}") from error
        if not low_ms <= value <= high_ms:
            raise InvalidValue("is out of range", f"use a duration from {low} to {high}")
        return value

    return parse


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return a parser for whole numbers from `low` to `high`."""

    def parse(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9 and low <= int(text) <= high):
            raise InvalidValue("is not a whole number in the allowed range", f"use a whole number from {low} to {high}")
        return int(text)

    return parse


def boolean(text: str) -> bool:
    """Parse `true` or `false`. The parser also accepts `1`, `0`, `yes` and `no`, and ignores case."""
    try:
        return {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}[text.lower()]
    except KeyError:
        raise InvalidValue("is not a boolean", "use true or false") from None


def retention(text: str) -> int:
    """Parse a retention period, and return it in milliseconds. 0 means unlimited retention."""
    if text in ("0", "0s"):
        return 0
    try:
        return duration("1m", "3650d")(text)
    except InvalidValue as wrong:
        raise InvalidValue(wrong.reason, f"{wrong.remedy}, or 0 to keep everything") from wrong


def schedule(text: str) -> tuple[int, ...]:
    """Parse delays that are separated by commas, and return milliseconds. An empty string means no delays."""
    parts = [part.strip() for part in text.split(",")] if text else []
    if len(parts) > DELAYS_MAX:
        raise InvalidValue(f"has too many delays: {len(parts)}", f"use at most {DELAYS_MAX} delays")
    parse = duration("1ms", "30d")
    delays: list[int] = []
    for number, part in enumerate(parts, 1):
        try:
            delays.append(parse(part))
        except InvalidValue as wrong:
            remedy = (
                "separate delays of 1ms to 30d with commas, such as 5s,5m,2h; for one attempt, leave the setting empty"
            )
            raise InvalidValue(f"is not valid: delay {number} {wrong.reason}", remedy) from wrong
    return tuple(delays)


def direct_database_url(text: str) -> str:
    """Parse the URL of a PostgreSQL database that the server must reach directly, without a pooler."""
    if not text.startswith(POSTGRESQL):
        raise InvalidValue("is not a PostgreSQL URL", "use postgresql://user:password@host:port/database")
    url = _postgresql_url(text)
    if "pooler" in dict(parse_qsl(split_postgres_url(url).query)):
        raise InvalidValue(
            "has the parameter pooler, but must connect without a pooler",
            "use the address of the database itself, and remove the parameter",
        )
    return url


def database_url(text: str) -> str:
    """Parse the URL of a SQLite file or a PostgreSQL database."""
    if text.startswith(POSTGRESQL):
        return _postgresql_url(text)
    if not text.startswith(SQLITE) or not text[len(SQLITE) :].strip("/"):
        raise InvalidValue(
            "is not a SQLite or PostgreSQL URL",
            "use sqlite:///directory/file.db, with a fourth slash for an absolute path, or"
            " postgresql://user:password@host:port/database",
        )
    if "?" in text or "#" in text or text.endswith("/"):
        raise InvalidValue("has parameters or is a directory", "use sqlite:///directory/file.db without parameters")
    return text


def _postgresql_url(text: str) -> str:
    remedy = (
        "use postgresql://user:password@host:port/database?sslmode=verify-full, and percent-encode special characters"
    )
    try:
        parts = split_postgres_url(text)
        listed = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    except ValueError:
        raise InvalidValue("is not a valid URL", remedy) from None
    if text.count("@") > 1:
        raise InvalidValue("has more than one @", _CODES)
    _check_hosts(parts.hosts.split(","))
    if parts.fragment or " " in text or not text.isascii() or not {"[", "]"}.isdisjoint(parts.userinfo or ""):
        raise InvalidValue("is not a valid URL", remedy)
    if not parts.path.strip("/"):
        raise InvalidValue("has no database name", remedy)
    given = dict(listed)
    if len(given) < len(listed):
        raise InvalidValue("has a repeated parameter", "use each parameter once")
    if unknown := sorted(given.keys() - set(POSTGRESQL_PARAMETERS)):
        known = ", ".join(POSTGRESQL_PARAMETERS)
        raise InvalidValue(
            f"has the unknown parameter {unknown[0]!r}", f"remove the parameter; the allowed parameters are {known}"
        )
    _check_hosts_given(given, beside=parts.hosts)
    if (wanted := given.get("target_session_attrs", "any")) not in _SESSIONS:
        raise InvalidValue(
            f"has the invalid value target_session_attrs={wanted}",
            f"use one of {', '.join(_SESSIONS)}, or remove the parameter",
        )
    _check_encryption(given)
    if given.get("pooler", "transaction") != "transaction":
        raise InvalidValue(
            f"has the invalid value pooler={given['pooler']}", "use pooler=transaction, or remove the parameter"
        )
    return text


def _check_hosts(hosts: Sequence[str]) -> None:
    _check_all_named(hosts)
    for host in hosts:
        if "[" in host or "]" in host:
            _check_bracketed(host)
            continue
        name, _, port = host.partition(":")
        _check_port(port)
        try:
            name.encode("idna")
        except UnicodeError:
            raise InvalidValue(f"has the invalid host name {name!r}", "correct the name") from None


def _check_bracketed(host: str) -> None:
    found = _BRACKETED.fullmatch(host)
    try:
        if found is None:
            raise ValueError
        IPv6Address(unquote(found[1]))
    except ValueError:
        raise InvalidValue(f"has the invalid IPv6 address {host!r}", "use an address such as [2001:db8::1]") from None
    _check_port((found[2] or ":")[1:])


def _check_hosts_given(given: Mapping[str, str], *, beside: str) -> None:
    for name in ("host", "port"):
        if beside and name in given:
            remedy = "put all hosts before the database name, each as host:port"
            raise InvalidValue(f"specifies hosts twice: before the database name and in the parameter {name}", remedy)
    hosts, ports = given.get("host", "").split(","), given.get("port", "").split(",")
    _check_all_named(hosts)
    if any(host.count(":") > 1 and host[:1] not in "[/" for host in hosts):
        raise InvalidValue("has an IPv6 address without brackets", "use brackets, such as [2001:db8::1]")
    if len(ports) > 1 and "" in ports:
        remedy = "use one port for each host, or one port for all hosts"
        raise InvalidValue("has an empty entry in its list of ports", remedy)
    for port in ports:
        _check_port(port)


def _check_all_named(hosts: Sequence[str]) -> None:
    if len(hosts) > 1 and "" in hosts:
        raise InvalidValue("has an empty entry in its list of hosts", "separate hosts with single commas")


def _check_port(port: str) -> None:
    if port and not port.isdecimal():
        # Do not show the port. It may be part of a password that contains a slash.
        remedy = f"use a port from 1 to 65535, or remove the port; {_CODES}"
        raise InvalidValue("has a port that is not a number", remedy)
    if port and not 0 < int(port) < 65_536:
        raise InvalidValue(f"has the invalid port {port}", "use a port from 1 to 65535, or remove the port")


def _check_encryption(given: Mapping[str, str]) -> None:
    mode = given.get("sslmode", "prefer")
    if mode not in _SSLMODES:
        raise InvalidValue(
            f"has the invalid value sslmode={mode}", f"use one of {', '.join(_SSLMODES)}, or remove the parameter"
        )
    if given.get("sslrootcert") == "system" and mode != "verify-full":
        raise InvalidValue("has sslrootcert=system without sslmode=verify-full", "add sslmode=verify-full")
    for name in ("sslrootcert", "sslcert", "sslkey"):
        path = given.get(name)
        if path and (name, path) != ("sslrootcert", "system") and not _is_file(path):
            raise InvalidValue(
                f"has {name}={path}, which is not a readable file",
                "use the path of a PEM file, or remove the parameter",
            )


def without_password(url: str) -> str:
    """Mask the passwords in a database URL, or in NATS URLs that are separated by commas."""
    return re.sub(r"(://[^:/@]*):[^@/]*@|([?&]\w*password=)[^&]*", _masked, url)


def _masked(found: re.Match[str]) -> str:
    return f"{found[1]}:••••••••@" if found[1] is not None else f"{found[2]}••••••••"


def address(text: str) -> str:
    """Parse an IP address and return its canonical form."""
    try:
        if "%" in text:
            raise ValueError
        return str(ip_address(text))
    except ValueError:
        raise InvalidValue("is not an IP address", "use an address such as 192.0.2.10 or 2001:db8::10") from None


def addresses(text: str) -> tuple[str, ...]:
    """Parse IP addresses, separated by commas. An empty string means no addresses."""
    return tuple(address(part.strip()) for part in text.split(",")) if text else ()


def networks(text: str) -> tuple[str, ...]:
    """Parse IP addresses and networks, separated by commas."""
    try:
        return tuple(str(each) for each in parse_networks(text)) if text else ()
    except ValueError:
        raise InvalidValue(
            "is not a list of addresses and networks", "separate the entries with commas, such as 127.0.0.1,10.0.0.0/8"
        ) from None


def published_addresses(text: str) -> tuple[str, ...]:
    """Parse the egress IPs that the server publishes, separated by commas.

    A timestamp after an address is the time when the server starts to use the address.
    """
    try:
        return tuple(SourceAddress.parse(part).text for part in text.split(",")) if text else ()
    except ValueError:
        raise InvalidValue(
            "is not a list of addresses with optional timestamps",
            "use a list such as 192.0.2.10,192.0.2.11@2026-12-01T00:00:00Z, which contains a current and an "
            "upcoming address",
        ) from None


def source_addresses(text: str) -> tuple[str, ...]:
    """Parse the IP addresses from which the server sends requests: at most one per IP version."""
    found = addresses(text)
    if any(ip_address(each).is_unspecified or ip_address(each).is_multicast for each in found):
        raise InvalidValue("is not a valid egress IP", "use an address of this machine")
    if len(found) != len({":" in each for each in found}):
        raise InvalidValue(
            "has two addresses of the same IP version", "use one IPv4 address, one IPv6 address, or one of each"
        )
    return found


def host(text: str) -> str:
    """Parse an IP address or a host name."""
    labels = text.split(".")
    if ":" in text:
        return address(text)
    if len(text) > 253 or not all(
        label and len(label) <= 63 and label.isascii() and label.replace("-", "").replace("_", "").isalnum()
        for label in labels
    ):
        raise InvalidValue(
            "is not an address or a host name", "use 127.0.0.1 (this machine only) or 0.0.0.0 (all interfaces)"
        )
    return text


def url(*schemes: str, userinfo: bool = False, path: bool = False) -> Callable[[str], str]:
    """Return a parser for URLs without a query or fragment. The parser removes slashes at the end of a URL."""
    allowed = " or ".join(f"{scheme}://" for scheme in schemes)

    def parse(text: str) -> str:
        remedy = f"use {allowed}host[:port]" + ("[/path]" if path else "")
        try:
            parts = urlsplit(text)
            port, host = parts.port, parts.hostname
        except ValueError:
            raise InvalidValue("is not a valid URL", remedy) from None
        if parts.scheme not in schemes:
            raise InvalidValue(f"does not begin with {allowed}", remedy)
        if not host or port == 0 or " " in text or not text.isascii():
            raise InvalidValue("is not a valid URL", remedy)
        if parts.query or parts.fragment or text[-1] in "?#" or (parts.path.strip("/") and not path):
            raise InvalidValue("has a query or fragment" if path else "has a path, query or fragment", remedy)
        if "@" in parts.netloc and not userinfo:
            raise InvalidValue("contains a user name or password", remedy)
        return text.rstrip("/")

    return parse


def issuer(text: str) -> str:
    """Check the issuer URL of an identity provider. Keep a trailing slash, because it is part of the issuer."""
    url("http", "https", path=True)(text)
    return text


def text(given: str) -> str:
    """Check that a string does not start or end with white space."""
    if given != given.strip():
        raise InvalidValue("begins or ends with white space", "remove the white space")
    return given


def mail_server(text: str) -> str:
    """Check the URL of an SMTP server (`smtp://` or `smtps://`)."""
    try:
        parse_mail_server(text)
    except ValueError as error:
        remedy = "use smtp://[user:password@]host[:port], or smtps:// for TLS from the start"
        raise InvalidValue(str(error), remedy) from None
    return text


def mailbox(text: str) -> str:
    """Check an email address. A display name may precede the address."""
    try:
        parse_mailbox(text)
    except ValueError:
        remedy = "use the form webhooks@example.com or Uplift Webhooks <webhooks@example.com>"
        raise InvalidValue("is not an email address", remedy) from None
    return text


def email(text: str) -> str:
    """Check an email address without a display name."""
    if check_email(text) is not None:
        raise InvalidValue("is not an email address", "use the form operations@example.com")
    return text


def account(text: str) -> str:
    """Check the form of an account's ID or uid. The account need not exist."""
    if parse_prefixed(ACCOUNT, text) is None and not is_uid(text):
        raise InvalidValue("is not the ID or the uid of an account", "use an ID or a uid from `uplift-server accounts`")
    return text


def token(text: str) -> str:
    """Check that a bearer token has 16 to 256 printable ASCII characters and no spaces."""
    if not 16 <= len(text) <= 256 or not is_visible_ascii(text):
        raise InvalidValue(
            "is not a token of 16 to 256 printable ASCII characters without spaces",
            "create a token with: head -c 32 /dev/urandom | base64",
        )
    return text


def operator_key(text: str) -> str:
    """Check that an operator key is `op_` followed by 13 to 253 printable ASCII characters and no spaces."""
    if not text.startswith("op_") or not 16 <= len(text) <= 256 or not is_visible_ascii(text):
        raise InvalidValue(
            "is not an operator key, which is op_ followed by 13 to 253 printable ASCII characters without spaces",
            'create a key with: echo "op_$(head -c 24 /dev/urandom | base64 | tr +/ -_)"',
        )
    return text


def secret_key(text: str) -> str:
    """Check a key of 32 bytes in base64."""
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidValue("is not base64", MAKE_KEY) from None
    if len(key) != ENCRYPTION_KEY_BYTES:
        raise InvalidValue(f"decodes to {len(key)} bytes, not {ENCRYPTION_KEY_BYTES}", MAKE_KEY)
    return text


def nats_urls(text: str) -> str:
    """Check NATS URLs, separated by commas."""
    remedy = "use nats://[user:password@]host[:port] or tls://[user:password@]host[:port], and separate URLs by commas"
    parse = url("nats", "tls", userinfo=True)
    try:
        urls = [parse(each) for each in text.split(",")]
    except InvalidValue as wrong:
        raise InvalidValue(wrong.reason, remedy) from None
    found = [urlsplit(each) for each in urls]
    if any("@" in each.netloc and not (each.username and each.password) for each in found):
        raise InvalidValue("has a user name without a password, or a password without a user name", remedy)
    if len({each.scheme for each in found}) > 1:
        raise InvalidValue("has both nats:// and tls:// URLs", "use tls:// for all URLs")
    return ",".join(urls)


def stream_replicas(text: str) -> int:
    """Parse the number of NATS servers that store each event.

    The number must be odd: an even number tolerates no more failures than the next lower odd number.
    """
    if text not in ("1", "3", "5"):
        raise InvalidValue("is not 1, 3 or 5", "use 3, or 1 for a single NATS server")
    return int(text)


def credentials_file(text: str) -> str:
    """Check that a NATS credentials file is readable."""
    if not _is_file(text):
        raise InvalidValue("is not a readable file", "use the path of a NATS credentials file (.creds)")
    return text


def file(text: str) -> str:
    """Check that a file is readable."""
    if not _is_file(text):
        raise InvalidValue("is not a readable file", "use the path of a PEM file with certificates")
    return text


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file() and os.access(path, os.R_OK)
    except (OSError, ValueError):
        return False


def log_format(text: str) -> str:
    """Check that a log format is `console`, `json` or `none`."""
    if text not in ("console", "json", "none"):
        raise InvalidValue("is not a log format", "use console, json or none")
    return text
