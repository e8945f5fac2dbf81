"""Unused portal links on the operators' page of an account."""

from tests.dashboard.visitors import operator
from tests.e2e.harness import Server


def test_an_operator_revokes_an_unused_portal_link(server: Server) -> None:
    account, _ = server.account()
    guest, path = operator(server), f"/operator/accounts/{account}"
    guest.post(f"{path}/portal-links", page=path, email="ann@a.example", role="admin")
    [link] = server.api().ok("GET", f"/v1/accounts/{account}/portal-links")["data"]
    assert "ann@a.example, admin, expires" in guest.get(path).text
    assert "Portal link revoked" in guest.post(f"{path}/portal-links/{link['id']}/revoke", page=path).text
    assert server.api().ok("GET", f"/v1/accounts/{account}/portal-links")["data"] == []
