"""Driver and TLS errors caused by a wrong database URL or missing privileges, and how to fix them."""

import socket
import ssl
from typing import Final

import asyncpg

from uplift_server.store.errors import Misaddressed, Unavailable

UNDECLARED_POOLER: Final = (
    "the database is behind a pooler in transaction mode; add pooler=transaction to UPLIFT_DATABASE_URL"
)
# Errors that indicate a pooler. They concern prepared statements or, with PgBouncer, the settings of a new connection.
_STRANGE_STATEMENT: Final = ("26000", "42P05")
_STRANGE_SETTING: Final = "unsupported startup parameter"
# Each row has a SQLSTATE, a part of PostgreSQL's message in English, and a fix. The first match applies.
_REJECTED: Final = (
    ("3D000", "", "create the database (CREATE DATABASE), or correct UPLIFT_DATABASE_URL"),
    (
        "42501",
        "",
        "make the user of UPLIFT_DATABASE_URL the database owner (ALTER DATABASE … OWNER TO …), or grant the privilege",
    ),
    ("28P01", "", "correct the user and password in UPLIFT_DATABASE_URL"),
    ("28000", "[local]", "allow the connection in pg_hba.conf, or correct UPLIFT_DATABASE_URL"),
    (
        "28000",
        "no encryption",
        "add sslmode=verify-full if the database requires TLS, or allow the connection in pg_hba.conf",
    ),
    ("28000", "client certificate", "add a client certificate with sslcert and sslkey in UPLIFT_DATABASE_URL"),
    ("28000", "does not exist", "create the user (CREATE ROLE), or correct the user in UPLIFT_DATABASE_URL"),
    ("28000", "", "allow the connection in pg_hba.conf, or correct UPLIFT_DATABASE_URL"),
)
_SERVICES: Final = ("LDAP", "PAM", "RADIUS", "GSSAPI", "SSPI")
"""Names of authentication services in error messages.

PostgreSQL reports the same SQLSTATE whether the service is down or rejects the user.
"""
# Temporary errors. Each row has a SQLSTATE, the start of the message, and a fix.
_TEMPORARILY_REJECTED: Final = (
    (
        "53300",
        "",
        "close unused connections, or raise max_connections or the limit of the database or user",
    ),
    *(("28000", each, "check that this authentication service is running and knows the user") for each in _SERVICES),
)
_AUTHORITY: Final = "set sslrootcert in UPLIFT_DATABASE_URL to the file of its certificate authority"
_STANDBYS: Final = "promote a standby, or add the primary to UPLIFT_DATABASE_URL"
_HOST: Final = "in UPLIFT_DATABASE_URL, use the host name from the server's certificate"
_CLOCK: Final = "correct the clock of this machine (NTP)"
# Fixes by X509_V_ERR code (openssl/x509_vfy.h).
_CERTIFICATE_REMEDIES: Final = dict.fromkeys((2, 18, 19, 20, 21), _AUTHORITY) | {
    3: "add the revocation list of its certificate authority",
    9: _CLOCK,
    10: f"renew the certificate on the database server, and {_CLOCK}",
    11: _CLOCK,
    12: f"renew the revocation list, and {_CLOCK}",
    62: _HOST,
    64: _HOST,
}
_TEMPORARY_CODES: Final = (9, 10, 11, 12)
_BAD: Final = "replace the certificate on the database server"
_UNREADABLE: Final = ("X509", "PEM")
# Parts of messages that identify errors without a class or code of their own.
_NOT_OFFERED: Final = "rejected SSL upgrade"
_NO_KEY: Final = "PEM lib"
_FILES: Final = "correct sslrootcert, sslcert or sslkey in UPLIFT_DATABASE_URL; the key must not have a password"
_NO_ROOT: Final = (
    "set sslrootcert in UPLIFT_DATABASE_URL to the file of its certificate authority, or set sslmode=verify-full"
)


def configuration_error(error: BaseException) -> Unavailable | None:
    """Convert an error with a known cause to an error that says how to fix it.

    Return Misaddressed if the user must change the configuration. Return None if the cause is unknown.
    """
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
        return Unavailable(_message("none of its hosts accepts writes", _STANDBYS))
    return _tls_configuration_error(error)


def unusable_file(path: str, error: OSError) -> Misaddressed:
    """Return the error for a certificate file or key file that the TLS library rejects."""
    return Misaddressed(_message(f"{path}: {error.strerror or error}", _FILES))


def _tls_configuration_error(error: BaseException) -> Unavailable | None:
    if isinstance(error, ssl.SSLCertVerificationError):
        code = error.verify_code
        message = _message(
            f"its certificate is not valid: {error.verify_message}", _CERTIFICATE_REMEDIES.get(code, _BAD)
        )
        return Unavailable(message) if code in _TEMPORARY_CODES else Misaddressed(message)
    if isinstance(error, ssl.SSLError) and (error.library in _UNREADABLE or _NO_KEY in str(error)):
        return Misaddressed(_message(f"a certificate or key file is not valid: {error}", _FILES))
    if isinstance(error, ConnectionError) and _NOT_OFFERED in str(error):
        remedy = "set ssl = on in PostgreSQL, correct the host and port, or use sslmode=disable on a trusted network"
        return Misaddressed(_message("it does not offer TLS, or is not PostgreSQL", remedy))
    if isinstance(error, socket.gaierror):
        remedy = "check that DNS works, and correct the host in UPLIFT_DATABASE_URL if needed"
        return Unavailable(f"cannot resolve the host of the database: {error.strerror}; {remedy}")
    return None


def _message(cause: str, remedy: str) -> str:
    return f"the server cannot use the database: {cause.rstrip('.')}; {remedy}"
