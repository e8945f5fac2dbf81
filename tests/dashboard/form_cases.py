"""One valid submission of each form, for tests that submit all of them."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.dashboard import second_factors
from tests.dashboard.full_account import FullAccount
from tests.dashboard.visitors import Guest, member, operator, operator_link
from tests.e2e.harness import OPERATOR_KEY, TYPE, Server, deliveries_of, wait_for
from tests.e2e.receiving import Receiver, respond

PASSWORD = "seven quiet otters"
_ACCOUNT = "/accounts/{account}"
_ENDPOINT = _ACCOUNT + "/endpoints/{endpoint}"


class Forms:
    """An account with an owner who has a password, and the objects that forms need."""

    def __init__(self, server: Server, receiver: Receiver) -> None:
        self.server = server
        self.receiver = receiver
        self.account = FullAccount(server, receiver.url(f"/{uuid4().hex}"))
        self.email = f"olga@{uuid4().hex}.example"
        self.owner = self.person("owner", self.email)
        self.operator = operator(server)
        self.prepared = self.owner
        """The visitor that the preparation of a case created."""

    def person(self, role: str = "admin", email: str | None = None) -> Guest:
        """Return a new member with a password."""
        guest = member(self.server, self.account.id, role, email or f"{uuid4().hex}@a.example")
        assert guest.post("/you/password", page="/you", password=PASSWORD, follow=False).status == 303
        return guest

    def endpoint(self, **fields: Any) -> str:
        """Return the ID of a new endpoint."""
        made: str = self.account.api.endpoint(self.receiver.url(f"/{uuid4().hex}"), **fields)["id"]
        return made

    def entries(self, action: str) -> list[Any]:
        """Return the audit log entries with this action."""
        return self.server.api().list_all(f"/v1/audit-log?action={action}")


Values = Mapping[str, str]
Prepare = Callable[[Forms], Values]


def _none(_: Forms) -> Values:
    return {}


@dataclass(frozen=True)
class FormCase:
    """A form, its fields, and its action in the audit log. `{name}` in path and fields is an ID or a prepared value."""

    path: str
    fields: Values = field(default_factory=dict)
    action: str | None = None
    prepare: Prepare = _none
    """Creates objects that only this submission uses, and returns their IDs."""
    visitor: str = "owner"
    """owner, operator, person (a new member with a password), prepared (set by `prepare`) or signed_out."""
    repeatable: bool = False
    """Whether the form has an idempotency key."""
    shows: bool = False
    """Whether the next page shows a one-time secret."""

    def submission(self, forms: Forms) -> tuple[str, dict[str, str], Guest]:
        """Return the path, the fields without the form token, and the visitor."""
        known = {**forms.account.ids, "unique": uuid4().hex[:12], "email": forms.email, **self.prepare(forms)}
        fields = {name: value.format(**known) for name, value in self.fields.items()}
        if self.repeatable:
            fields["once"] = uuid4().hex
        visitors = {
            "owner": lambda: forms.owner,
            "operator": lambda: forms.operator,
            "person": forms.person,
            "prepared": lambda: forms.prepared,
            "signed_out": lambda: Guest(forms.server.url),
        }
        return self.path.format(**known), fields, visitors[self.visitor]()


def _new_endpoint(forms: Forms) -> Values:
    return {"endpoint": forms.endpoint()}


def _paused(forms: Forms) -> Values:
    endpoint = forms.endpoint()
    forms.account.api.ok("POST", f"/v1/endpoints/{endpoint}/pause")
    return {"endpoint": endpoint}


def _rotated(forms: Forms) -> Values:
    endpoint = forms.endpoint()
    forms.account.api.ok("POST", f"/v1/endpoints/{endpoint}/secret/rotate", {})
    return {"endpoint": endpoint}


def _pending(forms: Forms) -> Values:
    url = forms.receiver.url(f"/{uuid4().hex}", respond(503, Retry_After="3600"))
    api = forms.account.api
    endpoint = api.endpoint(url, event_types=[TYPE])["id"]
    event = api.send(1).json["id"]
    [delivery] = [each for each in deliveries_of(api, event) if each["endpoint"] == endpoint]
    path = f"/v1/deliveries/{delivery['id']}"
    wait_for(lambda: api.ok("GET", path)["waiting_for"] in {"schedule", "probe"}, "the first response")
    return {"delivery": delivery["id"], "endpoint": endpoint}


def _replay(forms: Forms, *, paused: bool = False) -> Values:
    api = forms.account.api
    endpoint = _paused(forms)["endpoint"]
    replay = api.ok("POST", "/v1/replays", {"endpoint": endpoint, "status": ["failed", "delivered"]})["id"]
    if paused:
        api.ok("POST", f"/v1/replays/{replay}/pause")
    return {"replay": replay}


def _key(forms: Forms) -> Values:
    key = forms.server.api().ok("POST", f"/v1/accounts/{forms.account.id}/keys", {"name": "old"})
    return {"key": key["id"]}


def _service_key(forms: Forms) -> Values:
    return {"service_key": forms.server.api().ok("POST", "/v1/keys", {"name": "old", "scopes": []})["id"]}


def _link(forms: Forms) -> Values:
    return {"link": forms.server.api().ok("POST", f"/v1/accounts/{forms.account.id}/portal-links")["id"]}


def _session(forms: Forms) -> Values:
    key = forms.server.api().ok("POST", f"/v1/accounts/{forms.account.id}/keys", {"name": "l", "scopes": ["listen"]})
    return {"session": forms.server.api(key["key"]).ok("POST", "/v1/listen-sessions")["id"]}


def _invitation(forms: Forms) -> Values:
    wanted = {"email": f"{uuid4().hex}@a.example", "role": "member"}
    made = forms.server.api().ok("POST", f"/v1/accounts/{forms.account.id}/members", wanted)
    return {"invitation": made["id"], "token": made["url"].rpartition("/")[2]}


def _member(forms: Forms) -> Values:
    email = f"{uuid4().hex}@a.example"
    forms.person("member", email)
    people = forms.server.api().list_all(f"/v1/accounts/{forms.account.id}/members")
    return {"member": next(each["id"] for each in people if each["email"] == email)}


def _app(forms: Forms) -> Values:
    """Create a person who is setting up an authenticator app. Return the fields of the setup form."""
    forms.prepared = forms.person()
    return second_factors.setup_fields(forms.prepared, PASSWORD)


def _second_factor(forms: Forms) -> Values:
    """Create a person with a second factor."""
    email = f"{uuid4().hex}@a.example"
    forms.prepared = forms.person("member", email)
    code = second_factors.turn_on(forms.prepared, PASSWORD)[0]
    people = forms.server.api().list_all(f"/v1/accounts/{forms.account.id}/members")
    return {"code": code, "email": email, "member": next(each["id"] for each in people if each["email"] == email)}


def _pending_code(forms: Forms) -> Values:
    """Create a person with a second factor who has entered the password."""
    values = _second_factor(forms)
    forms.prepared = Guest(forms.server.url)
    forms.prepared.post("/sign-in", email=values["email"], password=PASSWORD)
    return values


def _account(forms: Forms) -> Values:
    return {"account": forms.server.account("Another")[0]}


def _type(forms: Forms) -> Values:
    name = f"forms.t{uuid4().hex[:12]}"
    forms.server.api().ok("PUT", f"/v1/event-types/{name}", {"description": "One", "group": "Forms"})
    return {"name": name}


_EVENT_TYPE = {
    "group": "Forms",
    "description": "One {unique}",
    "api_version": "2026-01-01",
    "schema": json.dumps({"type": "object"}).replace("{", "{{").replace("}", "}}"),
    "example": "{{}}",
}

CASES = [
    FormCase("/sign-in", {"email": "{email}", "password": PASSWORD}, "member.signed_in", visitor="signed_out"),
    FormCase("/sign-in/code", {"code": "{code}"}, "member.signed_in", prepare=_pending_code, visitor="prepared"),
    FormCase("/sign-in/operator", {"key": OPERATOR_KEY}, "operator.signed_in", visitor="signed_out"),
    FormCase(
        "/enter/{token}",
        action="operator.signed_in",
        prepare=lambda forms: {"token": operator_link(forms.server).rpartition("/")[2]},
        visitor="signed_out",
    ),
    FormCase("/sign-out", visitor="person"),
    FormCase(
        "/invitations/{token}",
        {"name": "Ida", "password": PASSWORD},
        "member.joined",
        prepare=_invitation,
        visitor="signed_out",
    ),
    FormCase("/forgotten", {"email": "{email}"}, visitor="signed_out"),
    FormCase(
        "/passwords/{token}",
        {"password": PASSWORD},
        "member.password_changed",
        prepare=lambda forms: {"token": _reset_token(forms)},
        visitor="signed_out",
    ),
    FormCase("/you/name", {"name": "Olga {unique}"}, "member.renamed"),
    FormCase("/you/password", {"present": PASSWORD, "password": PASSWORD}, "member.password_changed", visitor="person"),
    FormCase("/you/unlink", visitor="person"),
    FormCase(
        "/you/second-factor",
        {"app": "{app}", "code": "{code}", "password": PASSWORD},
        "member.second_factor_turned_on",
        prepare=_app,
        visitor="prepared",
        shows=True,
    ),
    FormCase(
        "/you/second-factor/off",
        {"code": "{code}", "password": PASSWORD},
        "member.second_factor_turned_off",
        prepare=_second_factor,
        visitor="prepared",
    ),
    FormCase(
        "/you/second-factor/recovery-codes",
        {"code": "{code}", "password": PASSWORD},
        "member.recovery_codes_created",
        prepare=_second_factor,
        visitor="prepared",
        shows=True,
    ),
    FormCase("/you/leave", {"account": "{account}"}, "member.removed", visitor="person"),
    FormCase("/you/sign-out-everywhere", visitor="person"),
    FormCase("/hide-secret", {"next": "/you"}),
    FormCase("/confirm", {"password": PASSWORD, "next": "/you"}),
    FormCase(
        f"{_ACCOUNT}/get-started/endpoint",
        {"url": "http://127.0.0.1:9/{unique}", "framework": "django"},
        "endpoint.created",
        repeatable=True,
        shows=True,
    ),
    FormCase(f"{_ACCOUNT}/get-started/secret", {"endpoint": "{endpoint}"}, "secret.revealed", shows=True),
    FormCase(f"{_ACCOUNT}/get-started/test", {"endpoint": "{endpoint}"}, "endpoint.tested", prepare=_new_endpoint),
    FormCase(f"{_ACCOUNT}/get-started/verify", {"endpoint": "{endpoint}"}, prepare=_new_endpoint),
    FormCase(
        f"{_ACCOUNT}/endpoints/new",
        {
            "url": "http://127.0.0.1:9/{unique}?a=1&b=ü",
            "description": "Ana's <laptop> {unique}",
            "event_types": "movement.*",
            "headers": 'X-One: 1\nX-Two: "2"',
            "max_in_flight": "3",
            "auth_type": "oauth2_client_credentials",
            "token_url": "https://login.example/token",
            "client_id": "uplift",
            "client_secret": "s3cret",
        },
        "endpoint.created",
        repeatable=True,
        shows=True,
    ),
    FormCase(
        f"{_ENDPOINT}/edit",
        {"url": "http://127.0.0.1:9/{unique}", "description": "{unique}"},
        "endpoint.changed",
        prepare=_new_endpoint,
    ),
    FormCase(f"{_ENDPOINT}/delete", action="endpoint.deleted", prepare=_new_endpoint),
    FormCase(f"{_ENDPOINT}/pause", action="endpoint.paused", prepare=_new_endpoint),
    FormCase(f"{_ENDPOINT}/enable", {"held": "drop"}, "endpoint.enabled", prepare=_paused),
    FormCase(f"{_ENDPOINT}/security/reveal", action="secret.revealed", shows=True),
    FormCase(
        f"{_ENDPOINT}/security/rotate",
        {"overlap_seconds": "3600", "uplift_header": "new", "secret": "my-own-{unique}"},
        "secret.rotated",
        prepare=_new_endpoint,
        repeatable=True,
        shows=True,
    ),
    FormCase(f"{_ENDPOINT}/security/expire-old", action="secret.old_expired", prepare=_rotated),
    FormCase(f"{_ENDPOINT}/test", {"type": TYPE}, "endpoint.tested", prepare=_new_endpoint, repeatable=True),
    FormCase(f"{_ACCOUNT}/deliveries/{{delivery}}/resend", action="delivery.resent", prepare=_pending),
    FormCase(f"{_ACCOUNT}/deliveries/{{delivery}}/cancel", action="delivery.cancelled", prepare=_pending),
    FormCase(
        f"{_ACCOUNT}/deliveries/resend",
        {"endpoint": "{endpoint}", "status": "delivered", "rate_per_second": "7"},
        "deliveries.resent",
        prepare=_paused,
        repeatable=True,
    ),
    FormCase(
        f"{_ACCOUNT}/replays",
        {"endpoint": "{endpoint}", "status": "delivered", "include_missing": "1", "rate_per_second": "7"},
        "replay.created",
        prepare=_paused,
        repeatable=True,
    ),
    FormCase(f"{_ACCOUNT}/replays/{{replay}}/pause", action="replay.paused", prepare=_replay),
    FormCase(
        f"{_ACCOUNT}/replays/{{replay}}/resume",
        action="replay.resumed",
        prepare=lambda forms: _replay(forms, paused=True),
    ),
    FormCase(f"{_ACCOUNT}/replays/{{replay}}/cancel", action="replay.cancelled", prepare=_replay),
    FormCase(f"{_ACCOUNT}/catalog/{{type}}/test", {"endpoint": "{endpoint}"}, "endpoint.tested", prepare=_new_endpoint),
    FormCase(
        f"{_ACCOUNT}/developers/keys",
        {"name": "Key {unique}", "scopes": "events:read"},
        "key.created",
        repeatable=True,
        shows=True,
    ),
    FormCase(
        f"{_ACCOUNT}/developers/keys/{{key}}",
        {"name": "Key {unique}", "expires_at": "2099-01-31T12:00"},
        "key.changed",
        prepare=_key,
    ),
    FormCase(f"{_ACCOUNT}/developers/keys/{{key}}/revoke", action="key.revoked", prepare=_key),
    FormCase(f"{_ACCOUNT}/developers/listen-sessions/{{session}}/end", action="listen_session.ended", prepare=_session),
    FormCase(
        f"{_ACCOUNT}/settings/invitations",
        {"email": "{unique}@a.example", "role": "manager"},
        "member.invited",
        repeatable=True,
        shows=True,
    ),
    FormCase(
        f"{_ACCOUNT}/settings/invitations/{{invitation}}/withdraw",
        action="member.invitation_withdrawn",
        prepare=_invitation,
    ),
    FormCase(
        f"{_ACCOUNT}/settings/members/{{member}}/role", {"role": "manager"}, "member.role_changed", prepare=_member
    ),
    FormCase(f"{_ACCOUNT}/settings/members/{{member}}/remove", action="member.removed", prepare=_member),
    FormCase(
        f"{_ACCOUNT}/settings/members/{{member}}/password-link",
        action="link.created",
        prepare=_member,
        visitor="operator",
        shows=True,
    ),
    FormCase(
        f"{_ACCOUNT}/settings/members/{{member}}/second-factor",
        action="member.second_factor_reset",
        prepare=_second_factor,
        visitor="operator",
    ),
    FormCase(f"{_ACCOUNT}/settings/contacts", {"contact_emails": "a@{unique}.example\nb@b.example"}, "account.changed"),
    FormCase(f"{_ACCOUNT}/settings/erasures/preview", {"object_id": "athlete-{unique}"}),
    FormCase(
        f"{_ACCOUNT}/settings/erasures",
        {"object_id": "athlete-{unique}", "confirmed": "1"},
        "erasure.created",
        repeatable=True,
    ),
    FormCase(
        "/operator/accounts/new",
        {
            "name": "Rapids {unique}",
            "contact_emails": "a@a.example\nb@b.example",
            "uid": "club-{unique}",
            "metadata": '{{"plan": "club"}}',
        },
        "account.created",
        visitor="operator",
        repeatable=True,
    ),
    FormCase(
        "/operator/accounts/{account}",
        {"name": "Otters {unique}", "contact_emails": "", "uid": "otters-{unique}", "metadata": ""},
        "account.changed",
        prepare=_account,
        visitor="operator",
    ),
    FormCase(
        "/operator/accounts/{account}/portal-links",
        {"email": "{unique}@a.example", "role": "admin"},
        "link.created",
        visitor="operator",
        repeatable=True,
        shows=True,
    ),
    FormCase(
        "/operator/accounts/{account}/portal-links/{link}/revoke",
        action="link.revoked",
        prepare=_link,
        visitor="operator",
    ),
    FormCase(
        "/operator/keys",
        {"name": "Key {unique}", "scopes": "events:write"},
        "key.created",
        visitor="operator",
        repeatable=True,
        shows=True,
    ),
    FormCase(
        "/operator/keys/{service_key}",
        {"name": "Key {unique}", "expires_at": ""},
        "key.changed",
        prepare=_service_key,
        visitor="operator",
    ),
    FormCase("/operator/keys/{service_key}/revoke", action="key.revoked", prepare=_service_key, visitor="operator"),
    FormCase("/operator/accounts/{account}/delete", action="account.deleted", prepare=_account, visitor="operator"),
    FormCase(
        "/operator/endpoints/{endpoint}/disable", action="endpoint.disabled", prepare=_new_endpoint, visitor="operator"
    ),
    FormCase(
        "/operator/endpoints/{endpoint}/enable",
        {"held": "keep"},
        "endpoint.enabled",
        prepare=_paused,
        visitor="operator",
    ),
    FormCase(
        "/operator/event-types/new-type",
        {"name": "forms.t{unique}", **_EVENT_TYPE},
        "event_type.published",
        visitor="operator",
    ),
    FormCase("/operator/event-types/{name}", _EVENT_TYPE, "event_type.published", prepare=_type, visitor="operator"),
    FormCase(
        "/operator/event-types/{name}/archive",
        {"archived": "1"},
        "event_type.published",
        prepare=_type,
        visitor="operator",
    ),
    FormCase("/operator/event-types/{name}/delete", action="event_type.deleted", prepare=_type, visitor="operator"),
]
"""All forms of the dashboard."""


def _reset_token(forms: Forms) -> str:
    path = f"/accounts/{forms.account.id}/settings/members/{_member(forms)['member']}/password-link"
    page = forms.operator.post(path, page=f"/accounts/{forms.account.id}/settings")
    return page.html.partition("/passwords/")[2].partition("<")[0]
