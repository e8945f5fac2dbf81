"""TLS contexts for connections to receivers, and error messages for failed handshakes."""

import os
import re
import ssl
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from typing import IO, Final, Self

from uplift_server.delivery.targets import ClientIdentity

_SESSIONS_MAX: Final = 1000
_SESSION_SECONDS_MAX: Final = 600.0

# Error texts by X509_V_ERR code (openssl/x509_vfy.h).
_CERTIFICATE_FAULTS: Final = {
    9: "the certificate of {host}, or one in its chain, is not valid yet",
    10: "the certificate of {host}, or one in its chain, has expired",
    18: "the certificate of {host} is self-signed",
    19: "the certificate of {host} was issued by an authority that is not trusted",
    23: "the certificate of {host} was revoked",
    62: "the certificate is for another name, not for {host}",
    64: "the certificate is for another address, not for {host}",
} | dict.fromkeys(
    (2, 20, 21, 27),
    "the issuer of the certificate of {host} is unknown: "
    "the authority is not trusted, or the receiver does not send its intermediate certificate",
)
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
_TOO_OLD: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


class TlsContext(ssl.SSLContext):
    """A client context for TLS 1.2 and later. It verifies certificates, and resumes the latest session with a host.

    A resumed session skips the certificate check. Therefore, the context keeps only sessions from full handshakes, for
    at most _SESSION_SECONDS_MAX.
    """

    _sessions: dict[str, tuple[ssl.SSLSession, float]]
    _monotonic: Callable[[], float]

    @classmethod
    def create(
        cls, ca_file: str | None, monotonic: Callable[[], float], identity: ClientIdentity | None = None
    ) -> Self:
        """Create a context that trusts the system's certificate authorities, or only the authorities in `ca_file`.

        Raises OSError or ssl.SSLError if `ca_file` or `identity` cannot be loaded.
        """
        context = cls(ssl.PROTOCOL_TLS_CLIENT)
        context._sessions = {}
        context._monotonic = monotonic
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        if ca_file is None:
            context.load_default_certs()
        else:
            context.load_verify_locations(cafile=ca_file)
        if identity is not None:
            load_identity(context, identity)
        return context

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """Start TLS on a connection, with the host's stored session if there is one.

        The event loop calls this method.
        """
        if session is None and isinstance(server_hostname, str):
            session = self._session(server_hostname)
        return super().wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def remember(self, host: str, encrypted: ssl.SSLObject) -> None:
        """Store the session of a connection to `host`. In TLS 1.3, the session exists only after the first response."""
        # Do not keep a resumed session again, because it would extend the life of an old certificate check.
        if encrypted.session_reused:
            return
        session = encrypted.session
        if session is None or not session.has_ticket:
            return
        self._sessions.pop(host, None)
        if len(self._sessions) >= _SESSIONS_MAX:
            del self._sessions[next(iter(self._sessions))]
        self._sessions[host] = (session, self._monotonic() + _SESSION_SECONDS_MAX)

    def remove(self, host: str) -> None:
        """Remove the session of a host whose handshake failed."""
        self._sessions.pop(host, None)

    def _session(self, host: str) -> ssl.SSLSession | None:
        # Reuse tickets. RFC 8446 C.4 advises against this, because an observer could link a client's connections.
        # However, the server's IP address links its connections anyway.
        # Measured per connection: 590 µs (ticket reused), 740 µs (no resumption), 890 µs (a new ticket each time).
        session, expires_at = self._sessions.get(host, (None, 0.0))
        return session if self._monotonic() < expires_at else None


def load_identity(context: ssl.SSLContext, identity: ClientIdentity) -> None:
    """Load a certificate and its private key into a context. Raises ssl.SSLError if OpenSSL rejects them.

    On Linux, neither the certificate nor the key is written to disk.
    """
    with ExitStack() as files:
        paths = []
        for text in (identity.certificate, identity.private_key):
            file = files.enter_context(_memory_file())
            file.write(text.encode())
            file.seek(0)
            paths.append(f"/dev/fd/{file.fileno()}")
        certificate, private_key = paths
        context.load_cert_chain(certificate, private_key, _reject_encrypted)


def _memory_file() -> IO[bytes]:
    """Return an open file without a name: a memory file on Linux, and a deleted file on other systems."""
    if hasattr(os, "memfd_create"):
        return os.fdopen(os.memfd_create("identity"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _reject_encrypted() -> str:
    """Return an empty password, so that OpenSSL rejects an encrypted key instead of asking for its password."""
    return ""


def explain(error: Exception, host: str) -> str:
    """Return the reason why a TLS handshake with `host` failed, as text for the owner of the endpoint."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code)
        return fault.format(host=host) if fault else f"the certificate of {host} is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return f"{host} ended the connection during the TLS handshake"
    name = error.reason or ""
    if name in _NOT_TLS:
        return f"{host} does not support TLS on this port"
    if name in _TOO_OLD:
        return f"{host} offers only TLS versions older than 1.2"
    return f"the TLS handshake with {host} failed: {error_text(error)}"


def error_text(error: ssl.SSLError) -> str:
    """Return OpenSSL's name for an error, such as `certificate required`."""
    name = (error.reason or str(error)).replace("_", " ").lower()
    return re.sub("^(tlsv1|tlsv13|sslv3) alert ", "", name)
