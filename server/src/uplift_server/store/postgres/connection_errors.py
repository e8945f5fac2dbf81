"""What the driver and TLS complain of that is wrong with the address of a database, or with the rights it leads to."""

import socket
import ssl
from typing import Final

import asyncpg

from uplift_server.store.errors import Misaddressed, Unavailable

UNTOLD_POOLER: Final = (
    "a pooler stands between that gives every transaction another connection; add pooler=transaction to"
    " UPLIFT_DATABASE_URL"
)
# What it makes of prepared statements, and PgBouncer of the settings with which a connection begins.
_STRANGE_STATEMENT: Final = ("26000", "42P05")
_STRANGE_SETTING: Final = "unsupported startup parameter"
# By SQLSTATE and a part of what PostgreSQL says, the first that fits. Where it does not speak English, fewer do.
_NOT_LET_IN: Final = (
    ("3D000", "", "make it (CREATE DATABASE), or correct UPLIFT_DATABASE_URL"),
    (
        "42501",
        "",
        "make the user of UPLIFT_DATABASE_URL its owner (ALTER DATABASE … OWNER TO …), or give it the right",
    ),
    ("28P01", "", "correct user and password in UPLIFT_DATABASE_URL"),
    ("28000", "[local]", "let this in (pg_hba.conf), or correct UPLIFT_DATABASE_URL"),
    (
        "28000",
        "no encryption",
        "add sslmode=verify-full if only that is let in, or let this in (pg_hba.conf)",
    ),
    ("28000", "client certificate", "name one with sslcert and sslkey in UPLIFT_DATABASE_URL"),
    ("28000", "does not exist", "make it (CREATE ROLE), or correct the user in UPLIFT_DATABASE_URL"),
    ("28000", "", "let this in (pg_hba.conf), or correct UPLIFT_DATABASE_URL"),
)
_SERVICES: Final = ("LDAP", "PAM", "RADIUS", "GSSAPI", "SSPI")
"""Whom PostgreSQL may ask who somebody is. It says the same when one of them is away, which passes."""
# What passes, by SQLSTATE and the beginning of what PostgreSQL says.
_NOT_LET_IN_NOW: Final = (
    (
        "53300",
        "",
        "end connections that nobody needs, or raise max_connections, or the limit of the database or its user",
    ),
    *(("28000", each, "see whether that service answers the database, and knows this user") for each in _SERVICES),
)
_AUTHORITY: Final = "name the file of its authority with sslrootcert in UPLIFT_DATABASE_URL"
_STANDBYS: Final = "promote a standby, or name the primary in UPLIFT_DATABASE_URL"
_HOST: Final = "name the host that it was issued for in UPLIFT_DATABASE_URL"
_CLOCK: Final = "set this machine's clock right (NTP)"
# By X509_V_ERR code (openssl/x509_vfy.h).
_CERTIFICATE_REMEDIES: Final = dict.fromkeys((2, 18, 19, 20, 21), _AUTHORITY) | {
    3: "give the list of revoked certificates one of its authority, too",
    9: _CLOCK,
    10: f"let whoever runs the database renew it, and {_CLOCK}",
    11: _CLOCK,
    12: f"renew the list, and {_CLOCK}",
    62: _HOST,
    64: _HOST,
}
_PASSING: Final = (9, 10, 11, 12)
_BAD: Final = "let whoever runs the database replace it"
_UNREADABLE: Final = ("X509", "PEM")
# What the driver and TLS say that has no class or code of its own.
_NOT_OFFERED: Final = "rejected SSL upgrade"
_NO_KEY: Final = "PEM lib"
_FILES: Final = "correct sslrootcert, sslcert or sslkey in UPLIFT_DATABASE_URL; a key must have no password"
_NO_ROOT: Final = "name the file of its authority with sslrootcert in UPLIFT_DATABASE_URL, or write sslmode=verify-full"


def mistake(said: BaseException) -> Unavailable | None:
    """The error with a remedy, if the driver's is about the address: Misaddressed if it lasts until that is mended."""
    text, state = str(said), getattr(said, "sqlstate", None) or ""
    if state in _STRANGE_STATEMENT or _STRANGE_SETTING in text:
        return Misaddressed(UNTOLD_POOLER)
    for code, beginning, remedy in _NOT_LET_IN_NOW:
        if state == code and text.startswith(beginning):
            return Unavailable(_told(text, remedy))
    for code, phrase, remedy in _NOT_LET_IN:
        if state == code and phrase in text:
            return Misaddressed(_told(text, remedy))
    if isinstance(said, asyncpg.ClientConfigurationError):
        remedy = _NO_ROOT if "root certificate" in said.args[0] else "correct UPLIFT_DATABASE_URL"
        return Misaddressed(_told(said.args[0], remedy))
    if isinstance(said, asyncpg.TargetServerAttributeNotMatched):
        return Unavailable(_told("no host of it takes writes", _STANDBYS))
    return _mistake_of_tls(said)


def unusable(path: str, error: OSError) -> Misaddressed:
    """The error for a file of certificates or keys that TLS does not take."""
    return Misaddressed(_told(f"{path}: {error.strerror or error}", _FILES))


def _mistake_of_tls(said: BaseException) -> Unavailable | None:
    if isinstance(said, ssl.SSLCertVerificationError):
        code = said.verify_code
        told = _told(f"its certificate: {said.verify_message}", _CERTIFICATE_REMEDIES.get(code, _BAD))
        return Unavailable(told) if code in _PASSING else Misaddressed(told)
    if isinstance(said, ssl.SSLError) and (said.library in _UNREADABLE or _NO_KEY in str(said)):
        return Misaddressed(_told(f"a file of certificates or keys: {said}", _FILES))
    if isinstance(said, ConnectionError) and _NOT_OFFERED in str(said):
        remedy = "set ssl = on there, correct host and port, or write sslmode=disable where nobody can listen in"
        return Misaddressed(_told("it offers no encryption, or is no PostgreSQL", remedy))
    if isinstance(said, socket.gaierror):
        remedy = "see whether DNS answers, and correct the host in UPLIFT_DATABASE_URL if it is another"
        return Unavailable(f"the host of the database is not found: {said.strerror}; {remedy}")
    return None


def _told(cause: str, remedy: str) -> str:
    return f"the database cannot be used: {cause.rstrip('.')}; {remedy}"
