"""Scopes and rights of roles, and the roles that members can grant."""

import pytest

from uplift_server.core.security.rights import (
    GUEST_ROLE_MAX,
    RIGHTS_OF_ROLE,
    RIGHTS_OF_SCOPE,
    SCOPES_OF_ROLE,
    Right,
    Role,
    can_grant,
    check_role,
    parse_role,
)
from uplift_server.core.security.scopes import Scope

YES, NO = True, False
TABLE = {
    #                        member manager admin owner
    Scope.EVENTS_READ: (YES, YES, YES, YES),
    Scope.EVENTS_WRITE: (NO, NO, NO, NO),
    Scope.ENDPOINTS_READ: (YES, YES, YES, YES),
    Scope.ENDPOINTS_WRITE: (NO, YES, YES, YES),
    Scope.DELIVERIES_READ: (YES, YES, YES, YES),
    Scope.DELIVERIES_WRITE: (NO, YES, YES, YES),
    Scope.SECRETS_READ: (NO, YES, YES, YES),
    Scope.SECRETS_WRITE: (NO, YES, YES, YES),
    Scope.LISTEN: (NO, YES, YES, YES),
    Right.ENDPOINTS_TEST: (YES, YES, YES, YES),
    Right.KEYS_MANAGE: (NO, NO, YES, YES),
    Right.MEMBERS_MANAGE: (NO, NO, YES, YES),
    Right.ACCOUNT_MANAGE: (NO, NO, YES, YES),
    Right.AUDIT_READ: (NO, NO, YES, YES),
    Right.DATA_ERASE: (NO, NO, YES, YES),
}


def test_the_table_names_every_permission() -> None:
    assert set(TABLE) == {*Scope, *Right}


@pytest.mark.parametrize("role", Role)
def test_each_role_has_the_permissions_of_the_table(role: Role) -> None:
    assert SCOPES_OF_ROLE[role] == {what for what, said in TABLE.items() if isinstance(what, Scope) and said[role]}
    assert RIGHTS_OF_ROLE[role] == {what for what, said in TABLE.items() if isinstance(what, Right) and said[role]}


def test_a_higher_role_has_all_permissions_of_a_lower_one() -> None:
    for lower, higher in zip(Role, list(Role)[1:], strict=False):
        assert SCOPES_OF_ROLE[lower] <= SCOPES_OF_ROLE[higher]
        assert RIGHTS_OF_ROLE[lower] <= RIGHTS_OF_ROLE[higher]


def test_members_cannot_grant_more_than_their_role() -> None:
    given = {own: {other for other in Role if can_grant(own, other)} for own in Role}
    assert given[Role.OWNER] == set(Role)
    assert given[Role.ADMIN] == {Role.MEMBER, Role.MANAGER, Role.ADMIN}
    assert Role.OWNER not in given[Role.MANAGER] | given[Role.MEMBER]


def test_a_guest_cannot_be_owner() -> None:
    assert GUEST_ROLE_MAX < Role.OWNER


def test_a_key_has_no_management_permission() -> None:
    assert set(RIGHTS_OF_SCOPE) == {Right.ENDPOINTS_TEST, Right.AUDIT_READ}


def test_roles_are_named_in_lower_case() -> None:
    assert [parse_role(text) for text in ("member", "manager", "admin", "owner")] == list(Role)
    assert check_role("owner") is parse_role("Owner") is None
    problem = check_role("Owner")
    assert problem is not None
    assert (problem.field, problem.code) == ("role", "role_unknown")
    assert "member, manager, admin, owner" in problem.message
