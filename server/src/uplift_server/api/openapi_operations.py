"""The operations in the OpenAPI document: their IDs, and the errors that cannot be derived from their parameters.

Generated clients name their methods after the IDs, so an ID never changes. In the Python library, a dot separates the
two parts of the name: `endpoints_create` is `client.endpoints.create`.
"""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Operation:
    """The ID, error codes and response headers of one operation."""

    id: str
    """The operation's noun and verb, such as `endpoints_create`."""
    codes: tuple[str, ...] = ()
    """Error codes for this operation. Its parameters imply additional codes."""
    headers: tuple[str, ...] = ()
    """Headers of successful responses, in addition to `Idempotency-Replayed`.

    The names are keys of RESPONSE_HEADERS.
    """


_CONFLICT: Final = ("conflict",)
_ACCOUNT: Final = ("account_required",)
"""Error codes for calls about one account.

A caller whose key has access to several accounts must select the account.
"""
_CONFLICT_AND_ACCOUNT: Final = ("conflict", "account_required")

OPERATIONS: Final = {
    "GET /v1/account": Operation("account_get", _ACCOUNT),
    "GET /v1/accounts": Operation("accounts_list"),
    "POST /v1/accounts": Operation("accounts_create", _CONFLICT),
    "GET /v1/accounts/{account}": Operation("accounts_get"),
    "PUT /v1/accounts/{account}": Operation("accounts_put", _CONFLICT),
    "PATCH /v1/accounts/{account}": Operation("accounts_update", _CONFLICT),
    "DELETE /v1/accounts/{account}": Operation("accounts_delete"),
    "GET /v1/accounts/{account}/keys": Operation("keys_list"),
    "POST /v1/accounts/{account}/keys": Operation("keys_create", _CONFLICT),
    "PATCH /v1/accounts/{account}/keys/{key}": Operation("keys_update"),
    "DELETE /v1/accounts/{account}/keys/{key}": Operation("keys_revoke"),
    "GET /v1/keys": Operation("service_keys_list"),
    "POST /v1/keys": Operation("service_keys_create", _CONFLICT),
    "PATCH /v1/keys/{key}": Operation("service_keys_update"),
    "DELETE /v1/keys/{key}": Operation("service_keys_revoke"),
    "GET /v1/accounts/{account}/members": Operation("members_list"),
    "POST /v1/accounts/{account}/members": Operation("members_invite", _CONFLICT),
    "PATCH /v1/accounts/{account}/members/{member}": Operation("members_update", _CONFLICT),
    "DELETE /v1/accounts/{account}/members/{member}": Operation("members_remove", _CONFLICT),
    "POST /v1/accounts/{account}/members/{member}/password-reset": Operation("members_reset_password", _CONFLICT),
    "DELETE /v1/accounts/{account}/members/{member}/second-factor": Operation("members_reset_second_factor", _CONFLICT),
    "GET /v1/accounts/{account}/invitations": Operation("invitations_list"),
    "DELETE /v1/accounts/{account}/invitations/{invitation}": Operation("invitations_withdraw"),
    "GET /v1/accounts/{account}/erasures": Operation("erasures_list"),
    "POST /v1/accounts/{account}/erasures": Operation("erasures_create", _CONFLICT),
    "GET /v1/accounts/{account}/erasures/{erasure}": Operation("erasures_get"),
    "GET /v1/accounts/{account}/portal-links": Operation("links_list"),
    "DELETE /v1/accounts/{account}/portal-links/{link}": Operation("links_revoke"),
    "POST /v1/accounts/{account}/portal-links": Operation("links_portal", _CONFLICT),
    "POST /v1/sign-in-links": Operation("links_operator", _CONFLICT),
    "GET /v1/event-types": Operation("event_types_list"),
    "GET /v1/event-types/{name}": Operation("event_types_get"),
    "PUT /v1/event-types/{name}": Operation("event_types_put", _CONFLICT),
    "PATCH /v1/event-types/{name}": Operation("event_types_update"),
    "DELETE /v1/event-types/{name}": Operation("event_types_delete"),
    "GET /v1/endpoints": Operation("endpoints_list"),
    "POST /v1/endpoints": Operation("endpoints_create", _CONFLICT_AND_ACCOUNT),
    "POST /v1/endpoints/filter-preview": Operation("endpoints_filter_preview", _ACCOUNT),
    "GET /v1/endpoints/{endpoint}": Operation("endpoints_get"),
    "PUT /v1/endpoints/{endpoint}": Operation("endpoints_put", _CONFLICT),
    "PATCH /v1/endpoints/{endpoint}": Operation("endpoints_update", _CONFLICT),
    "DELETE /v1/endpoints/{endpoint}": Operation("endpoints_delete"),
    "GET /v1/endpoints/{endpoint}/deliveries": Operation("endpoints_deliveries"),
    "GET /v1/endpoints/{endpoint}/stats": Operation("endpoints_stats"),
    "POST /v1/endpoints/{endpoint}/pause": Operation("endpoints_pause", _CONFLICT),
    "POST /v1/endpoints/{endpoint}/enable": Operation("endpoints_enable"),
    "POST /v1/endpoints/{endpoint}/disable": Operation("endpoints_disable"),
    "POST /v1/endpoints/{endpoint}/test": Operation("endpoints_test", _CONFLICT),
    "POST /v1/endpoints/{endpoint}/verify": Operation("endpoints_verify", _CONFLICT),
    "GET /v1/endpoints/{endpoint}/secret": Operation("endpoints_secret"),
    "POST /v1/endpoints/{endpoint}/secret/rotate": Operation("endpoints_rotate_secret", _CONFLICT),
    "POST /v1/endpoints/{endpoint}/secret/expire-old": Operation("endpoints_expire_old_secret"),
    "GET /v1/events": Operation("events_list"),
    "POST /v1/events": Operation("events_send", _ACCOUNT),
    "POST /v1/events/batch": Operation("events_send_batch", _ACCOUNT),
    "GET /v1/events/{event}": Operation("events_get", _ACCOUNT),
    "GET /v1/events/{event}/explain": Operation("events_explain", _ACCOUNT),
    "GET /v1/events/{event}/deliveries": Operation("events_deliveries", _ACCOUNT),
    "GET /v1/rejected-events": Operation("rejected_events_list"),
    "GET /v1/rejected-events/{rejected_event}": Operation("rejected_events_get"),
    "GET /v1/deliveries": Operation("deliveries_list"),
    "POST /v1/deliveries/resend": Operation("deliveries_resend_matching", _CONFLICT_AND_ACCOUNT),
    "GET /v1/deliveries/{delivery}": Operation("deliveries_get", _ACCOUNT),
    "GET /v1/deliveries/{delivery}/attempts": Operation("deliveries_attempts", _ACCOUNT),
    "GET /v1/attempts": Operation("attempts_list"),
    "GET /v1/attempts/{attempt}": Operation("attempts_get", _ACCOUNT),
    "POST /v1/deliveries/{delivery}/resend": Operation("deliveries_resend", _CONFLICT_AND_ACCOUNT),
    "POST /v1/deliveries/{delivery}/cancel": Operation("deliveries_cancel", _CONFLICT_AND_ACCOUNT),
    "GET /v1/audit-log": Operation("audit_log_list", _ACCOUNT),
    "GET /v1/replays": Operation("replays_list"),
    "POST /v1/replays": Operation("replays_create", _CONFLICT_AND_ACCOUNT),
    "GET /v1/replays/{replay}": Operation("replays_get"),
    "POST /v1/replays/{replay}/pause": Operation("replays_pause", _CONFLICT),
    "POST /v1/replays/{replay}/resume": Operation("replays_resume", _CONFLICT),
    "POST /v1/replays/{replay}/cancel": Operation("replays_cancel", _CONFLICT),
    "GET /v1/stats": Operation("stats_get"),
    "GET /v1/listen-sessions": Operation("listen_sessions_list"),
    "POST /v1/listen-sessions": Operation("listen_sessions_create", _CONFLICT_AND_ACCOUNT),
    "GET /v1/listen-sessions/{session}": Operation("listen_sessions_get"),
    "DELETE /v1/listen-sessions/{session}": Operation("listen_sessions_delete"),
    "GET /v1/listen-sessions/{session}/answers": Operation("listen_sessions_answers"),
    "POST /v1/listen-sessions/{session}/test": Operation("listen_sessions_test", _CONFLICT),
    "GET /v1/fleet": Operation("fleet_get"),
    "GET /v1/source-ips": Operation("source_ips_list"),
    "POST /v1/retention/resume": Operation("retention_resume"),
    "GET /healthz": Operation("health_get"),
    "GET /readyz": Operation("readiness_get", headers=("Uplift-Database",)),
    "GET /metrics": Operation("metrics_get"),
    "GET /docs": Operation("documentation_get"),
    "GET /docs/{document}": Operation("documentation_get_page"),
}
"""All operations. Each key consists of a method and a path."""
