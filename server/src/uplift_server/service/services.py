"""All services of one server process."""

from collections.abc import Sequence
from dataclasses import dataclass

from uplift_server.core.endpoint_settings import AttemptTimeouts
from uplift_server.core.http.addresses import AddressPolicy
from uplift_server.core.http.source_addresses import SourceAddress
from uplift_server.service.accounts import Accounts
from uplift_server.service.audit import AuditLog
from uplift_server.service.authentication import Authenticator
from uplift_server.service.backlogs import Backlogs
from uplift_server.service.bulk_resends import BulkResends
from uplift_server.service.context import ServiceContext
from uplift_server.service.dashboard_links import DashboardLinks
from uplift_server.service.deliveries import Deliveries
from uplift_server.service.endpoint_problems import ProblemFinder
from uplift_server.service.endpoint_states import EndpointStates
from uplift_server.service.endpoint_tests import EndpointTests
from uplift_server.service.endpoints import Endpoints
from uplift_server.service.erasures import Erasures
from uplift_server.service.event_types import EventTypes
from uplift_server.service.events import Events
from uplift_server.service.explanations import Explanations
from uplift_server.service.filter_previews import FilterPreviews
from uplift_server.service.identity_provider import IdentityProvider
from uplift_server.service.keys import Keys
from uplift_server.service.listening import Listening
from uplift_server.service.members import Members
from uplift_server.service.metrics import Metrics, MetricsSettings
from uplift_server.service.operator_lists import OperatorLists
from uplift_server.service.operator_overview import OperatorOverview
from uplift_server.service.passwords import Passwords
from uplift_server.service.portal_links import PortalLinks
from uplift_server.service.readiness import Readiness
from uplift_server.service.registration import RegistrationEvents, Resolver, UrlChecker
from uplift_server.service.rejected_events import RejectedEvents
from uplift_server.service.replays import Replays
from uplift_server.service.retention import Retention
from uplift_server.service.search import Search
from uplift_server.service.second_factor_settings import SecondFactorSettings
from uplift_server.service.second_factors import SecondFactors
from uplift_server.service.secrets import Secrets
from uplift_server.service.service_keys import ServiceKeys
from uplift_server.service.sessions import Sessions
from uplift_server.service.sign_ins import SignInLimits
from uplift_server.service.single_sign_on import SingleSignOn
from uplift_server.service.statistics import Statistics
from uplift_server.service.traces import Traces
from uplift_server.service.unfinished_bodies import UnfinishedBodies
from uplift_server.store.encryption import Cipher


@dataclass(frozen=True, slots=True)
class Services:
    """The services for the API and the dashboard."""

    context: ServiceContext
    authenticator: Authenticator
    unfinished_bodies: UnfinishedBodies
    accounts: Accounts
    keys: Keys
    service_keys: ServiceKeys
    event_types: EventTypes
    endpoints: Endpoints
    endpoint_states: EndpointStates
    endpoint_tests: EndpointTests
    endpoint_problems: ProblemFinder
    filter_previews: FilterPreviews
    secrets: Secrets
    events: Events
    rejected_events: RejectedEvents
    deliveries: Deliveries
    audit_log: AuditLog
    explanations: Explanations
    replays: Replays
    bulk_resends: BulkResends
    erasures: Erasures
    listening: Listening
    operator_overview: OperatorOverview
    operator_lists: OperatorLists
    traces: Traces
    search: Search
    sessions: Sessions
    second_factor: SecondFactorSettings
    single_sign_on: SingleSignOn | None
    """Single sign-on. None if no identity provider is configured."""
    members: Members
    portal_links: PortalLinks
    statistics: Statistics
    metrics: Metrics
    readiness: Readiness
    retention: Retention
    source_ips: Sequence[SourceAddress]
    """The published egress IPs."""

    @classmethod
    def build(
        cls,
        context: ServiceContext,
        *,
        cipher: Cipher,
        policy: AddressPolicy,
        resolve: Resolver,
        source_ips: Sequence[str],
        listen_key: bytes,
        erasure_key: bytes,
        links: DashboardLinks,
        timeouts: AttemptTimeouts,
        metrics: MetricsSettings | None = None,
        provider: IdentityProvider | None = None,
    ) -> "Services":
        """Build all services, which share one context."""
        explanations, replays = Explanations(context), Replays(context)
        authenticator, readiness = Authenticator(context.cache, context.clock), Readiness(context)
        backlogs = Backlogs(context, readiness, sends_email=links.sends_email)
        limits = SignInLimits(has_unknown_proxy=links.has_unknown_proxy)
        factors = SecondFactors(context, cipher, sends_email=links.sends_email)
        sessions = Sessions(
            context,
            links,
            Passwords(),
            limits,
            factors,
            operator_grant=None if provider is None else provider.client.operator_grant,
        )
        endpoints = Endpoints(
            context,
            cipher,
            backlogs,
            UrlChecker(policy, resolve),
            RegistrationEvents(context),
            timeouts,
        )
        return cls(
            context=context,
            authenticator=authenticator,
            unfinished_bodies=UnfinishedBodies(),
            accounts=Accounts(context),
            keys=Keys(context),
            service_keys=ServiceKeys(context),
            event_types=EventTypes(context),
            endpoints=endpoints,
            endpoint_states=EndpointStates(context, endpoints),
            endpoint_tests=EndpointTests(context, endpoints),
            endpoint_problems=ProblemFinder(context, endpoints, backlogs),
            filter_previews=FilterPreviews(context),
            secrets=Secrets(context, cipher, endpoints),
            events=Events(context),
            rejected_events=RejectedEvents(context),
            deliveries=Deliveries(context),
            audit_log=AuditLog(context),
            explanations=explanations,
            replays=replays,
            bulk_resends=BulkResends(context, replays),
            erasures=Erasures(context, erasure_key),
            listening=Listening(context, listen_key),
            operator_overview=OperatorOverview(context, replays, backlogs, readiness),
            operator_lists=OperatorLists(context, backlogs),
            traces=Traces(context, explanations, replays),
            search=Search(context),
            sessions=sessions,
            second_factor=SecondFactorSettings(context, sessions, factors, limits),
            single_sign_on=None if provider is None else SingleSignOn(context, limits, provider),
            members=Members(context, links, factors),
            portal_links=PortalLinks(context, links),
            statistics=Statistics(context),
            metrics=Metrics(context, authenticator, readiness, backlogs, metrics or MetricsSettings()),
            readiness=readiness,
            retention=Retention(context),
            source_ips=[SourceAddress.parse(each) for each in source_ips],
        )
