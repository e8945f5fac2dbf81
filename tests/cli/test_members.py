"""Commands for members and dashboard links."""

import pytest
from tests.cli.commands import INVITATION, LINK, MEMBER, output, run
from tests.cli.fake_api import FakeApi

from uplift_server.cli import members


def test_members_are_listed_and_invited(api: FakeApi) -> None:
    assert output("members", "--account", "Rapids") == MEMBER
    assert run("members", "--account", "Rapids").stdout.splitlines()[1].split("\t")[:4] == [
        "mem_0f11", "ann@b.example", "Ann", "manager",
    ]  # fmt: skip
    arguments = ["members", "invite", "bob@b.example", "--role", "member", "--account", "Rapids"]
    assert output(*arguments) == INVITATION
    assert api.requests[-1].body == {"email": "bob@b.example", "role": "member"}
    assert "Send the link only to the new member" not in run(*arguments).stderr
    api.responses["POST /v1/accounts/acc_0a11/members"] = (201, {**INVITATION, "url": "https://x/invitations/abc"}, {})
    result = run(*arguments)
    assert "https://x/invitations/abc" in result.stdout
    assert "Send the link only to the new member" in result.stderr


def test_a_member_is_found_by_id_prefix_or_email(api: FakeApi) -> None:
    for name in ("mem_0f11", "0f", "Ann@B.example"):
        assert output("members", "role", name, "--role", "owner", "--account", "acc_0a11")["role"] == "owner"
        assert api.requests[-1].body == {"role": "owner"}
        assert output("members", "remove", name, "--account", "acc_0a11") == {"id": "mem_0f11", "removed": True}
        assert output("members", "reset-password", name, "--account", "acc_0a11") == LINK
        reset = output("members", "reset-second-factor", name, "--account", "acc_0a11")
        assert reset == {"id": "mem_0f11", "has_second_factor": False}
    result = run("members", "remove", "eve@b.example", "--account", "acc_0a11")
    assert result.exit_code == 4
    assert "or the full email address; to list them: `uplift-server members --account ACCOUNT`" in result.stderr


def test_invitations_are_listed_and_withdrawn(api: FakeApi) -> None:
    assert output("members", "invitations", "--account", "Rapids") == INVITATION
    for name in ("inv_0f", "bob@b.example"):
        assert output("members", "withdraw", name, "--account", "Rapids") == {"id": "inv_0f11", "withdrawn": True}


def test_a_sign_in_link_is_for_an_operator_or_an_account(api: FakeApi) -> None:
    assert output("sign-in-links", "create") == LINK
    assert (api.requests[-1].path, api.requests[-1].body) == ("/v1/sign-in-links", {})
    assert output("sign-in-links", "create", "--read-only") == LINK
    assert (api.requests[-1].path, api.requests[-1].body) == ("/v1/sign-in-links", {"read_only": True})
    assert output("sign-in-links", "create", "--account", "Rapids") == LINK
    assert (api.requests[-1].path, api.requests[-1].body) == ("/v1/accounts/acc_0a11/portal-links", {})
    assert output("sign-in-links", "create", "--account", "Rapids", "--email", "a@b.example", "--role", "owner") == LINK
    assert api.requests[-1].body == {"email": "a@b.example", "role": "owner"}
    assert "works once and expires after 5 minutes" in run("sign-in-links", "create").stderr
    result = run("sign-in-links", "create", "--email", "a@b.example")
    assert result.exit_code == 2
    assert "add --account" in result.stderr
    result = run("sign-in-links", "create", "--account", "Rapids", "--read-only")
    assert result.exit_code == 2
    assert "--read-only and --account cannot be combined" in result.stderr


def test_a_link_needs_a_running_server(api: FakeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "server_runs", lambda _config: False)
    result = run("sign-in-links", "create")
    assert result.exit_code == 1
    assert "run `uplift-server serve`" in result.stderr
    assert api.requests == []
