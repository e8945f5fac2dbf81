"""An endpoint cache for tests without an engine."""

from uplift_server.delivery.endpoint_cache import EndpointCache, LiveEndpoint
from uplift_server.delivery.shards import LocalShards
from uplift_server.store.encryption import Cipher


class Limits:
    """Records the endpoints whose limits were applied."""

    def __init__(self) -> None:
        self.adjusted: list[LiveEndpoint] = []

    def adjust(self, endpoint: LiveEndpoint) -> None:
        """See EndpointLimits."""
        self.adjusted.append(endpoint)


def endpoint_cache(cipher: Cipher, user_agent: str = "Uplift-Webhooks/test") -> EndpointCache:
    """Return an empty cache."""
    return EndpointCache(cipher, user_agent, LocalShards(), Limits())
