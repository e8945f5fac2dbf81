"""The settings of the parts, from the configuration."""

from uplift_server.config import Config
from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.engine import EngineSettings
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.store.contract import Database
from uplift_server.store.sqlite import SqliteDatabase


def database(config: Config) -> Database:
    """Create the configured database."""
    if not config.on_postgresql:
        return SqliteDatabase(config.database_path)
    # Imported only on PostgreSQL, to save memory.
    from uplift_server.store.postgres import PostgresDatabase  # noqa: PLC0415

    return PostgresDatabase(config.database_url)


def sender_settings(config: Config) -> SenderSettings:
    """Return the settings of the HTTP sender."""
    return SenderSettings(
        attempt_timeout_ms=config.attempt_timeout_ms,
        connect_timeout_ms=config.connect_timeout_ms,
        egress_addresses=config.egress_address or (),
        egress_proxy=config.egress_proxy,
        ca_file=config.egress_ca_file,
    )


def attempt_timeouts(config: Config) -> AttemptTimeouts:
    """Return the timeouts of attempts."""
    return AttemptTimeouts(config.attempt_timeout_ms, config.endpoint_timeout_max_ms)


def engine_settings(config: Config) -> EngineSettings:
    """Return the settings of the delivery engine."""
    return EngineSettings(
        schedule=RetrySchedule(config.retry_schedule_ms),
        breaker=BreakerRule(config.breaker_failures, config.breaker_probe_max_ms),
        timeouts=attempt_timeouts(config),
        lease_ms=config.lease_ms,
        in_flight_max=config.max_in_flight,
        endpoint_in_flight_max=config.max_in_flight_per_endpoint,
        retention_ms=config.retention_ms,
        health=HealthSettings(
            HealthRule(config.warn_after_ms, config.disable_after_ms),
            gone_disables=config.gone_disables_endpoint,
            sends_email=config.sends_mail,
            operator_email=config.operator_email,
        ),
        release_rate_per_second=config.release_rate_per_second,
        operations_account=config.operations_account,
    )
