"""Creates parts of the server from the configuration: the database, the HTTP sender, the outbox and the trace exporter.

Also creates the settings of the HTTP sender and of the delivery engine.
"""

from typing import TYPE_CHECKING

from uplift_server.config import Config, ConfigError, ConfigProblem
from uplift_server.core.deliveries.health import HealthRule
from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.people.mail_settings import parse_mailbox
from uplift_server.core.scheduling.circuit_breaker import BreakerRule
from uplift_server.core.scheduling.retry_schedule import RetrySchedule
from uplift_server.delivery.engine import EngineSettings
from uplift_server.delivery.health.monitor import HealthSettings
from uplift_server.delivery.ports import Clock, SingletonJobs
from uplift_server.delivery.sending.http.client import Sender
from uplift_server.delivery.sending.http.resolver import Resolver
from uplift_server.delivery.sending.http.settings import SenderSettings
from uplift_server.delivery.tracing import Traces
from uplift_server.observe.trace_records import REMEDY_WITHOUT_PACKAGES
from uplift_server.store.contract import Database
from uplift_server.store.sqlite import SqliteDatabase

if TYPE_CHECKING:
    from uplift_server.mail.outbox import Outbox


def database(config: Config) -> Database:
    """Return the configured database, which is not open yet."""
    if not config.on_postgresql:
        return SqliteDatabase(config.database_path)
    # Import only on PostgreSQL, to save memory.
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


def sender(settings: SenderSettings, policy: AddressPolicy, resolver: Resolver, clock: Clock) -> Sender:
    """Create the HTTP sender. Raises ConfigError if a certificate file or another egress setting is not valid."""
    try:
        return Sender(settings, policy, resolver, clock_ms=clock.now_ms)
    except OSError as error:
        raise ConfigError(
            ConfigProblem(
                "UPLIFT_EGRESS_CA_FILE", f"is not a readable PEM file ({error})", "use the path of a PEM file"
            )
        ) from error
    except ValueError as error:
        raise ConfigError(ConfigProblem("UPLIFT_EGRESS_…", str(error), "correct or remove the setting")) from error


def outbox(
    config: Config, database: Database, jobs: SingletonJobs, clock: Clock, *, public_url: str, link_key: bytes
) -> "Outbox":
    """Create the outbox, which sends emails through the configured mail server."""
    # Import only on servers that send email, to save memory.
    from uplift_server.mail.outbox import Outbox  # noqa: PLC0415
    from uplift_server.mail.smtp import SmtpServer  # noqa: PLC0415

    return Outbox(
        database,
        jobs,
        clock,
        SmtpServer.from_config(config),
        sender=parse_mailbox(config.mail_from or ""),
        public_url=public_url,
        link_key=link_key,
    )


def traces(config: Config, database: Database, clock: Clock) -> Traces | None:
    """Create the trace exporter, or return None if traces are disabled. Raises ConfigError if a package is missing."""
    setting = config.traces_by
    if setting is None:
        return None
    try:
        # Import only for traces, because the packages are optional and use memory.
        from uplift_server.observe.tracing import OtlpTracer  # noqa: PLC0415
    except ImportError as error:
        reason = f"needs packages that are not installed ({error})"
        raise ConfigError(ConfigProblem(setting, reason, REMEDY_WITHOUT_PACKAGES)) from error
    return Traces(database, clock, OtlpTracer(config.otlp_endpoint))


def attempt_timeouts(config: Config) -> AttemptTimeouts:
    """Return the configured attempt timeouts."""
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
