"""A client that exchanges authorization codes for identities at the identity provider.

The client keeps the provider's metadata and keys in memory. Each request has a timeout and a maximum response size.
"""

import asyncio
from dataclasses import dataclass, field
from typing import Any, Final

from uplift_server.config import Config
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.exchange import Exchange
from uplift_server.core.http.urls import EndpointUrl
from uplift_server.core.security import id_tokens, oidc
from uplift_server.core.security.id_tokens import Identity
from uplift_server.core.security.oidc import OidcClient, ProviderMetadata, Tokens
from uplift_server.delivery.ports import Clock
from uplift_server.delivery.sending.http.client import Sender
from uplift_server.delivery.sending.http.request import Request
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.targets import Target, to_ascii

TIMEOUT_MS: Final = 5_000
"""Timeout of each request to the provider, in ms."""
CONNECTIONS_MAX: Final = 64
_SERVER_ERROR: Final = 500


class ProviderFailed(Exception):
    """The provider's response does not prove the person's identity. The message is for the log."""


class ProviderDown(ProviderFailed):
    """The provider does not respond, or its metadata or keys are unusable.

    The person who signs in cannot fix the problem.
    """


@dataclass(frozen=True, slots=True)
class Identified:
    """A person whom the provider identified."""

    identity: Identity
    id_token: str = field(repr=False)


class IdentityProvider:
    """A client for the configured identity provider. Use an instance on only one event loop."""

    def __init__(self, client: OidcClient, sender: Sender, clock: Clock, user_agent: str) -> None:
        """Create a client that sends its HTTP requests with `sender`. The client starts and closes the sender."""
        self.client = client
        self._sender = sender
        self._clock = clock
        self._user_agent = user_agent
        self._metadata: ProviderMetadata | None = None
        self._metadata_until = 0
        self._loading: asyncio.Task[ProviderMetadata | ProviderDown] | None = None
        self._keys: dict[str, Any] = {}
        self._keys_loaded_at: int | None = None
        self._loading_keys: asyncio.Task[ProviderDown | None] | None = None

    async def start(self) -> None:
        """Start the client on the running event loop."""
        await self._sender.start()

    async def close(self) -> None:
        """Close all connections to the provider."""
        await self._sender.close()

    async def metadata(self) -> ProviderMetadata:
        """Return the provider's metadata. Load the metadata again if the cached metadata is too old.

        Raises ProviderDown.
        """
        if self._metadata is not None and self._clock.now_ms() < self._metadata_until:
            return self._metadata
        if self._loading is None or self._loading.done():
            self._loading = asyncio.ensure_future(self._load_metadata())
        found = await asyncio.shield(self._loading)
        if isinstance(found, ProviderDown):
            raise found
        return found

    async def check_keys(self) -> int:
        """Load the provider's keys, and return the number of usable keys. Raises ProviderDown."""
        failed = await self._load_keys(await self.metadata())
        if failed is not None:
            raise failed
        return id_tokens.count_usable_keys(self._keys)

    async def identify(self, code: str, verifier: str, nonce: str) -> Identified:
        """Exchange an authorization code for a person's identity. Raises ProviderFailed or ProviderDown."""
        metadata = await self.metadata()
        head, body = oidc.code_request(metadata, self.client, code, verifier, self._user_agent)
        tokens = oidc.read_tokens(await self._send(metadata.token_endpoint, head, body, what="token response"))
        if isinstance(tokens, str):
            raise ProviderFailed(tokens)
        claims = await self._verify(metadata, tokens.id_token)
        wrong = id_tokens.check_claims(claims, self.client, nonce, self._clock.wall_ms())
        if wrong is not None:
            raise ProviderFailed(f"ID token: {wrong}")
        if id_tokens.needs_userinfo(claims, self.client):
            claims = id_tokens.with_userinfo(claims, await self._userinfo(metadata, tokens, claims["sub"]))
        return Identified(id_tokens.identity_of(claims, self.client), tokens.id_token)

    async def _load_metadata(self) -> ProviderMetadata | ProviderDown:
        url = oidc.provider_url(oidc.metadata_url(self.client.issuer), to_ascii=to_ascii)
        if isinstance(url, str):
            return ProviderDown(f"metadata: {url}")
        try:
            values = await self._send(url, oidc.get_request(url, self._user_agent), what="metadata")
        except ProviderFailed as failed:
            return ProviderDown(str(failed))
        found = oidc.read_metadata(values, self.client.issuer, to_ascii=to_ascii)
        if isinstance(found, str):
            return ProviderDown(f"metadata: {found}")
        self._metadata, self._metadata_until = found, self._clock.now_ms() + oidc.METADATA_TTL_MS
        return found

    async def _verify(self, metadata: ProviderMetadata, token: str) -> dict[str, Any]:
        """Verify the signature of a token, and return its claims. Raises ProviderFailed or ProviderDown."""
        header = id_tokens.read_header(token)
        if isinstance(header, str):
            raise ProviderFailed(f"ID token: {header}")
        age_ms = None if self._keys_loaded_at is None else self._clock.now_ms() - self._keys_loaded_at
        keys = id_tokens.usable_keys(self._keys, header)
        is_old = age_ms is None or age_ms >= oidc.METADATA_TTL_MS
        if is_old or (not keys and age_ms is not None and age_ms >= oidc.KEYS_REFRESH_MS_MIN):
            failed = await self._shared_load_keys(metadata)
            if failed is not None:
                raise failed
            keys = id_tokens.usable_keys(self._keys, header)
        if not keys:
            raise ProviderFailed("ID token: none of the provider's keys matches the header (kid, alg)")
        from uplift_server.service.token_signatures import verified_claims  # noqa: PLC0415 - see there

        claims = next(filter(None, (verified_claims(token, key) for key in keys)), None)
        if claims is None:
            raise ProviderFailed("ID token: the signature is not valid")
        return claims

    async def _shared_load_keys(self, metadata: ProviderMetadata) -> ProviderDown | None:
        if self._loading_keys is None or self._loading_keys.done():
            self._loading_keys = asyncio.ensure_future(self._load_keys(metadata))
        return await asyncio.shield(self._loading_keys)

    async def _load_keys(self, metadata: ProviderMetadata) -> ProviderDown | None:
        url = metadata.jwks_uri
        try:
            self._keys = await self._send(url, oidc.get_request(url, self._user_agent), what="keys (jwks_uri)")
        except ProviderFailed as failed:
            return ProviderDown(str(failed))
        self._keys_loaded_at = self._clock.now_ms()
        return None

    async def _userinfo(self, metadata: ProviderMetadata, tokens: Tokens, subject: str) -> dict[str, Any]:
        """Return the claims from the userinfo endpoint.

        The result is empty if the provider has no such endpoint, or sent no access token.
        """
        url = metadata.userinfo_endpoint
        if url is None or tokens.access_token is None:
            return {}
        head = oidc.get_request(url, self._user_agent, tokens.access_token)
        values = await self._send(url, head, what="userinfo response")
        if values.get("sub") != subject:
            raise ProviderFailed("userinfo response: the subject (sub) differs from the subject of the ID token")
        return values

    async def _send(self, url: EndpointUrl, head: bytes, body: bytes = b"", *, what: str) -> dict[str, Any]:
        """Send a request, and return the JSON object in the response. Raises ProviderFailed or ProviderDown."""
        response: asyncio.Future[Exchange] = asyncio.get_running_loop().create_future()
        target = Target(url.host, url.port, url.encrypted)
        request = Request(target, head, body, response, response_bytes_max=oidc.RESPONSE_BYTES_MAX)
        self._sender.send(request, _respond)
        exchange = await response
        values = oidc.read_json(exchange, what)
        if isinstance(values, str):
            is_down = exchange.failure is not None or (exchange.status_code or 0) >= _SERVER_ERROR
            raise (ProviderDown if is_down else ProviderFailed)(values)
        return values


def _respond(request: Request, exchange: Exchange) -> None:
    response: asyncio.Future[Exchange] = request.context
    if not response.done():
        response.set_result(exchange)


def identity_provider(
    config: Config, public_url: str, resolver: Resolver, clock: Clock, user_agent: str
) -> IdentityProvider | None:
    """Return a client for the identity provider, or None if none is configured.

    The provider can have a private address. A public address requires https.
    """
    if config.oidc_issuer is None:
        return None
    assert config.oidc_client_id is not None, "the configuration is complete"
    assert config.oidc_client_secret is not None, "the configuration is complete"
    client = OidcClient(
        config.oidc_issuer,
        config.oidc_client_id,
        config.oidc_client_secret,
        public_url.rstrip("/") + oidc.CALLBACK_PATH,
        config.oidc_operator_group,
        config.oidc_read_only_group,
    )
    settings = SenderSettings(
        attempt_timeout_ms=TIMEOUT_MS,
        connect_timeout_ms=TIMEOUT_MS,
        connections_max=CONNECTIONS_MAX,
        egress_addresses=config.egress_address or (),
        egress_proxy=config.egress_proxy,
        ca_file=config.egress_ca_file,
    )
    return IdentityProvider(
        client, Sender(settings, AddressPolicy(allow_private_networks=True), resolver), clock, user_agent
    )
