"""The endpoint fields in a request, and the checks for these fields."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from uplift_server.core.endpoint_settings import SETTING_NAMES, AttemptTimeouts, setting_problems
from uplift_server.core.events.filters import check_filter, filter_text
from uplift_server.core.http.headers import MASKED, check_headers, merge_headers
from uplift_server.core.http.urls import with_lower_case_host
from uplift_server.core.own_data import check_metadata, check_uid
from uplift_server.core.problems import Problem
from uplift_server.core.security.endpoint_auth import EndpointAuth, auth_of
from uplift_server.core.security.signing import check_secret
from uplift_server.service.fields import UNSET, Unset, given_or_none, values_after
from uplift_server.store.records import EndpointState


@dataclass(frozen=True, slots=True)
class EndpointDraft:
    """The endpoint fields in a request. An update does not change absent fields. None sets a field to its default."""

    url: str | Unset = UNSET
    description: str | Unset | None = UNSET
    event_types: Sequence[str] | Unset | None = UNSET
    secret: str | Unset | None = field(default=UNSET, repr=False)
    headers: Mapping[str, str | None] | Unset | None = field(default=UNSET, repr=False)
    uid: str | Unset | None = UNSET
    metadata: Mapping[str, str | None] | Unset | None = field(default=UNSET, repr=False)
    filter: Mapping[str, object] | Unset | None = UNSET
    auth: EndpointAuth | Unset | None = UNSET
    settings: Mapping[str, Any] = field(default_factory=dict)
    """The settings in the request. Keys are setting names, and values are JSON values."""
    merges: bool = False
    """Whether `headers` and `metadata` contain only the keys to change. If so, a value of None removes the key."""
    is_paused: bool = False
    """Whether a new endpoint is paused. An update does not change the state."""

    @classmethod
    def from_fields(cls, sent: Mapping[str, Any], *, merges: bool = False) -> "EndpointDraft":
        """Create a draft from the fields of a request."""
        own = {name: value for name, value in sent.items() if name not in (*SETTING_NAMES, "state", "auth")}
        auth = sent.get("auth", UNSET)
        return cls(
            **own,
            auth=auth_of(auth) if isinstance(auth, Mapping) else auth,
            settings={name: sent[name] for name in SETTING_NAMES if name in sent},
            merges=merges,
            is_paused=sent.get("state") == EndpointState.PAUSED.text,
        )

    def normalized(self) -> "EndpointDraft":
        """Return the draft with the host name of its URL in lower case, and without duplicate event types."""
        return replace(
            self,
            url=self.url if isinstance(self.url, Unset) else with_lower_case_host(self.url),
            event_types=tuple(dict.fromkeys(self.event_types))
            if isinstance(self.event_types, Sequence)
            else self.event_types,
        )

    def problems(self, timeouts: AttemptTimeouts) -> list[Problem | None]:
        """Return the problems with the secret, the headers, the uid, the metadata, the filter and the settings."""
        found: list[Problem | None] = []
        secret = given_or_none(self.secret)
        if secret is not None:
            found.append(check_secret(secret))
        headers = merge_headers({}, given_or_none(self.headers) or {})
        found.extend(check_headers(headers))
        found.extend(
            Problem(f"headers.{name}", "header_invalid", "The header value is masked. Send the actual value.")
            for name, value in headers.items()
            if value == MASKED
        )
        uid = given_or_none(self.uid)
        if uid is not None:
            found.append(check_uid(uid))
        found.extend(check_metadata(self.metadata_after({})))
        pattern = given_or_none(self.filter)
        if pattern is not None:
            found.extend(check_filter(pattern))
        found.extend(setting_problems(self.settings, timeouts))
        return found

    def headers_after(self, stored: Mapping[str, str]) -> dict[str, str]:
        """Return the headers that the endpoint has after the request. `stored` contains its current headers."""
        if isinstance(self.headers, Unset):
            return dict(stored)
        return merge_headers(stored if self.merges and self.headers is not None else {}, self.headers or {})

    def metadata_after(self, stored: Mapping[str, str]) -> dict[str, str]:
        """Return the metadata that the endpoint has after the request. `stored` is its current metadata."""
        return values_after(stored, self.metadata, merges=self.merges)

    def filter_after(self, stored: str | None) -> str | None:
        """Return the filter (JSON text) that the endpoint has after the request. `stored` is its current filter."""
        if isinstance(self.filter, Unset):
            return stored
        return None if self.filter is None else filter_text(self.filter)
