"""The constant parts of an endpoint's requests, created from its stored record."""

import json
from secrets import token_bytes
from typing import Final

import structlog

from uplift_server.core.http.request_headers import RequestHeadersTemplate, request_headers_template
from uplift_server.core.http.urls import EndpointUrl, parse_endpoint_url
from uplift_server.core.ids import ENDPOINT, prefixed
from uplift_server.core.limits import SECRET_KEY_BYTES_GENERATED
from uplift_server.core.problems import Problem
from uplift_server.core.security.endpoint_auth import ClientCertificate, EndpointAuth, OAuthClient, auth_from_text
from uplift_server.core.security.secrets import SecretPair
from uplift_server.core.security.signing import Signer, generate_secret
from uplift_server.delivery.ports import NEVER
from uplift_server.delivery.targets import ClientIdentity, Target, to_ascii
from uplift_server.store.encryption import Cipher
from uplift_server.store.records import Endpoint

UNREACHABLE: Final = EndpointUrl(
    "https://unreachable.invalid/", "https", "unreachable.invalid", 443, "/", "unreachable.invalid", False
)
"""The replacement for an invalid stored URL.

Attempts to this URL fail, because no name under `.invalid` resolves (RFC 2606).
"""
_log = structlog.get_logger("uplift.cache")


class RequestParts:
    """The constant parts of an endpoint's requests: target, request headers, signer and authentication."""

    __slots__ = ("_next_signer", "head", "oauth", "signer", "signer_until", "target", "url")

    def __init__(
        self,
        url: EndpointUrl,
        account_seq: int,
        head: RequestHeadersTemplate,
        secrets: SecretPair[str],
        auth: EndpointAuth | None = None,
    ) -> None:
        """Create the parts from decrypted `secrets` and `auth`."""
        identity = None
        if isinstance(auth, ClientCertificate):
            identity = ClientIdentity(auth.certificate, auth.private_key)
        self.url = url
        self.target = Target(url.host, url.port, url.encrypted, account_seq, identity)
        self.oauth = auth if isinstance(auth, OAuthClient) else None
        self.head = head
        self.signer = Signer(secrets.live, secrets.uplift)
        self.signer_until = NEVER if secrets.previous_expires_at is None else secrets.previous_expires_at
        """When the overlap of two secrets ends (Unix ms), or NEVER.

        From then on, callers must call `end_overlap` before they sign.
        """
        # Create the next signer now, so that the text of the secret is not kept until the overlap ends.
        self._next_signer = self.signer if secrets.previous is None else Signer((secrets.current,), secrets.current)

    def end_overlap(self) -> None:
        """Sign only with the current secret from now on, because the overlap has ended."""
        self.signer, self.signer_until = self._next_signer, NEVER


def create_request_parts(record: Endpoint, cipher: Cipher, user_agent: str) -> RequestParts:
    """Create the constant parts of an endpoint's requests from its record. Raises WrongSecretKey."""
    secrets = record.secrets.mapped(
        lambda current: cipher.decrypt(current, record.id, "secret"),
        lambda previous: cipher.decrypt(previous, record.id, "previous_secret"),
    )
    headers = None if record.headers is None else cipher.decrypt(record.headers, record.id, "headers")
    auth = None if record.auth is None else auth_from_text(cipher.decrypt(record.auth, record.id, "auth"))
    # Do not apply the address policy here: the server applies it at registration and at every connection.
    url = parse_endpoint_url(record.url, None, to_ascii=to_ascii)
    if isinstance(url, Problem):
        _log.error("stored endpoint URL invalid", endpoint=prefixed(ENDPOINT, record.id), cause=url.message)
        url = UNREACHABLE
    head = request_headers_template(
        path=url.path,
        host_header=url.host_header,
        user_agent=user_agent,
        custom={} if headers is None else json.loads(headers),
        endpoint_id=record.id,
    )
    return RequestParts(url, record.account_seq, head, secrets, auth)


def wrong_signer() -> Signer:
    """Return a signer with a new random key, to test whether a receiver rejects wrong signatures."""
    secret = generate_secret(token_bytes(SECRET_KEY_BYTES_GENERATED))
    return Signer([secret], secret)
