"""Errors of the driver and of TLS that come from a wrong database URL, or from missing privileges, and their fixes."""

import socket
import ssl
from typing import Final

import asyncpg

from uplift_server.store.errors import Misaddressed, Unavailable

UNDECLARED_POOLER: Final = (
    "a pooler stands between that gives every transaction another connection; add pooler=transaction to"
    " UPLIFT_DATABASE_URL"
)
# Errors through a pooler: of prepared statements, and of settings at the start of a connection (PgBouncer).
_STRANGE_STATEMENT: Final = ("26000", "42P05")
_STRANGE_SETTING: Final = "unsupported startup parameter"
# SQLSTATE, part of the message, fix. The first match applies. Messages match only if PostgreSQL's are in English.
_REJECTED: Final = (
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
"""Authentication services. An outage of one has the same SQLSTATE as a rejection."""
# Temporary errors: SQLSTATE, start of the message, fix.
_TEMPORARILY_REJECTED: Final = (
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
# By X509_V_ERR code of openssl/x509_vfy.h.
_CERTIFICATE_REMEDIES: Final = dict.fromkeys((2, 18, 19, 20, 21), _AUTHORITY) | {
    3: "give the list of revoked certificates one of its authority, too",
    9: _CLOCK,
    10: f"let whoever runs the database renew it, and {_CLOCK}",
    11: _CLOCK,
    12: f"renew the list, and {_CLOCK}",
    62: _HOST,
    64: _HOST,
}
_TEMPORARY_CODES: Final = (9, 10, 11, 12)
_BAD: Final = "let whoever runs the database replace it"
_UNREADABLE: Final = ("X509", "PEM")
# Parts of messages of errors without a class or code.
_NOT_OFFERED: Final = "rejected SSL upgrade"
_NO_KEY: Final = "PEM lib"
_FILES: Final = "correct sslrootcert, sslcert or sslkey in UPLIFT_DATABASE_URL; a key must have no password"
_NO_ROOT: Final = "name the file of its authority with sslrootcert in UPLIFT_DATABASE_URL, or write sslmode=verify-full"


def configuration_error(error: BaseException) -> Unavailable | None:
    """Return an error with a fix if the driver's error has a known cause: Misaddressed if only a change helps."""
    text, state = str(error), getattr(error, "sqlstate", None) or ""
    if state in _STRANGE_STATEMENT or _STRANGE_SETTING in text:
        return Misaddressed(UNDECLARED_POOLER)
    for code, beginning, remedy in _TEMPORARILY_REJECTED:
        if state == code and text.startswith(beginning):
            return Unavailable(_message(text, remedy))
    for code, phrase, remedy in _REJECTED:
        if state == code and phrase in text:
            return Misaddressed(_message(text, remedy))
    if isinstance(error, asyncpg.ClientConfigurationError):
        remedy = _NO_ROOT if "root certificate" in error.args[0] else "correct UPLIFT_DATABASE_URL"
        return Misaddressed(_message(error.args[0], remedy))
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return Unavailable(_message("no host of it takes writes", _STANDBYS))
    return _tls_configuration_error(error)


def unusable_file(path: str, error: OSError) -> Misaddressed:
    """Return the error for a certificate or key file that TLS rejects."""
    return Misaddressed(_message(f"{path}: {error.strerror or error}", _FILES))


def _tls_configuration_error(error: BaseException) -> Unavailable | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        message = _message(f"its certificate: {error.verify_message}", _CERTIFICATE_REMEDIES.get(code, _BAD))
        return Unavailable(message) if code in _TEMPORARY_CODES else Misaddressed(message)
    if isinstance(error, ssl.SSLError) and (error.library in _UNREADABLE or _NO_KEY in str(error)):
        return Misaddressed(_message(f"a file of certificates or keys: {error}", _FILES))
    if isinstance(error, ConnectionError) and _NOT_OFFERED in str(error):
        remedy = "set ssl = on there, correct host and port, or write sslmode=disable where nobody can listen in"
        return Misaddressed(_message("it offers no encryption, or is no PostgreSQL", remedy))
    if isinstance(error, socket.gaierror):
        remedy = "see whether DNS answers, and correct the host in UPLIFT_DATABASE_URL if it is another"
        return Unavailable(f"the host of the database is not found: {error.strerror}; {remedy}")
    return None


def _message(cause: str, remedy: str) -> str:
    return f"the database cannot be used: {cause.rstrip('.')}; {remedy}"
