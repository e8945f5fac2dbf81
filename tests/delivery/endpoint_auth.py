"""A function that replaces the authentication to an endpoint in a test `World`."""

from msgspec import structs

from uplift_server.core.security.endpoint_auth import ClientCertificate, EndpointAuth, auth_text
from uplift_server.delivery.endpoint_cache import LiveEndpoint
from uplift_server.store import endpoints
from uplift_server.store.encryption import Cipher
from uplift_server.store.records import Endpoint

from .world import World


async def set_auth(world: World, endpoint: LiveEndpoint, auth: EndpointAuth) -> None:
    """Replace the authentication to an endpoint, as the API does."""

    def change(stored: Endpoint) -> Endpoint:
        return structs.replace(
            stored,
            auth=Cipher(b"k" * 32).encrypt(auth_text(auth), stored.id, "auth"),
            certificate_expires_at=auth.expires_at if isinstance(auth, ClientCertificate) else None,
            certificate_warned_at=None,
            updated_at=world.clock.now,
        )

    record = endpoint.record
    changed = await world.database.write(lambda c: endpoints.update(c, record.account_seq, record.id, change))
    world.cache.put_endpoint(changed)
