"""TLS towards receivers: what is trusted, and what went wrong in words."""

import re
import ssl
from typing import Final

# By X509_V_ERR code (openssl/x509_vfy.h).
_CERTIFICATE_FAULTS: Final = {
    9: "the certificate of {host}, or one in its chain, is not valid yet",
    10: "the certificate of {host}, or one in its chain, has expired",
    18: "the certificate of {host} is self-signed",
    19: "the certificate of {host} was issued by an authority that is not trusted",
    23: "the certificate of {host} was revoked",
    62: "the certificate is for another name than {host}",
    64: "the certificate is for another address than {host}",
} | dict.fromkeys(
    (2, 20, 21, 27),
    "the issuer of the certificate of {host} is unknown: "
    "the authority is not trusted, or the receiver does not send its intermediate certificate",
)
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "PACKET_LENGTH_TOO_LONG", "RECORD_LAYER_FAILURE"})
_TOO_OLD: Final = frozenset({"UNSUPPORTED_PROTOCOL", "TLSV1_ALERT_PROTOCOL_VERSION"})


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS 1.2 and later, certificates verified against the system's authorities, or only those in `ca_file`.

    Raises OSError or ssl.SSLError if `ca_file` cannot be read.
    """
    context = ssl.create_default_context(cafile=ca_file)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def explain(error: Exception, host: str) -> str:
    """Why a TLS handshake with `host` failed, in words for the owner of the receiver."""
    if isinstance(error, ssl.SSLCertVerificationError):
        fault = _CERTIFICATE_FAULTS.get(error.verify_code)
        return fault.format(host=host) if fault else f"the certificate of {host} is not valid: {error.verify_message}"
    if isinstance(error, ssl.SSLEOFError) or not isinstance(error, ssl.SSLError):
        return f"{host} ended the connection during the TLS handshake"
    name = error.reason or ""
    if name in _NOT_TLS:
        return f"{host} does not speak TLS on this port"
    if name in _TOO_OLD:
        return f"{host} offers only versions of TLS older than 1.2"
    return f"the TLS handshake with {host} failed: {in_words(error)}"


def in_words(error: ssl.SSLError) -> str:
    """What OpenSSL calls the error, such as `certificate required`."""
    name = (error.reason or str(error)).replace("_", " ").lower()
    return re.sub("^(tlsv1|tlsv13|sslv3) alert ", "", name)
