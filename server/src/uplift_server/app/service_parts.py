"""Builds the services of a process from the configuration."""

from collections.abc import Callable

from uplift_server.app.wiring import attempt_timeouts
from uplift_server.config import Config, secret_key
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.delivery.sending.http.resolver import ResolutionFailed, Resolver
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.identity_provider import IdentityProvider
from uplift_server.service.metrics import MetricsSettings
from uplift_server.service.services import Services
from uplift_server.store.encryption import Cipher, derived_key, parse_key


def build_services(
    config: Config,
    context: ServiceContext,
    cipher: Cipher,
    policy: AddressPolicy,
    resolver: Resolver,
    provider: IdentityProvider | None,
    *,
    public_url: str,
    log_lines_dropped: Callable[[], int],
) -> Services:
    """Build all services. `log_lines_dropped` returns the number of log lines that the server could not write."""
    key = parse_key(secret_key(config))

    async def resolve(host: str) -> list[str]:
        try:
            return list(await resolver.resolve(host))
        except ResolutionFailed:
            return []

    return Services.build(
        context,
        cipher=cipher,
        policy=policy,
        resolve=resolve,
        source_ips=config.source_ips,
        listen_key=derived_key(key, "listen sessions"),
        erasure_key=derived_key(key, "erasures"),
        links=DashboardLinks(
            derived_key(key, "links"),
            public_url,
            sends_email=config.sends_mail,
            has_unknown_proxy=public_url.startswith("https:") and not config.trusted_proxies,
        ),
        timeouts=attempt_timeouts(config),
        metrics=MetricsSettings(
            config.metrics_token, None if config.on_postgresql else config.database_path, log_lines_dropped
        ),
        provider=provider,
    )
