"""Scopes of keys."""

from uplift_server.core.security.scopes import DEFAULT_SCOPES, SERVICE_SCOPES, Scope, check_scopes


def test_the_documented_scopes() -> None:
    assert {str(scope) for scope in Scope} == {
        "events:read",
        "events:write",
        "endpoints:read",
        "endpoints:write",
        "deliveries:read",
        "deliveries:write",
        "secrets:read",
        "secrets:write",
        "listen",
    }


def test_service_keys_can_also_have_scopes_for_accounts() -> None:
    assert {*SERVICE_SCOPES} - {*Scope} == {"accounts:read", "accounts:write"}
    assert check_scopes(SERVICE_SCOPES, known=SERVICE_SCOPES) == []
    assert [each.code for each in check_scopes(["accounts:read", "listen"])] == ["scope_unknown"]


def test_default_scopes_can_neither_write_events_nor_read_secrets() -> None:
    assert frozenset(Scope) - DEFAULT_SCOPES == {"events:write", "secrets:read"}


def test_unknown_scopes_are_named_in_order() -> None:
    assert check_scopes([]) == []
    assert check_scopes(list(Scope)) == []
    problems = check_scopes(["events:read", "Events:Read", "all"], "scopes")
    assert [(problem.field, problem.code) for problem in problems] == [("scopes", "scope_unknown")] * 2
    assert "'all' does not exist" in problems[1].message
    assert "listen" in problems[1].message
