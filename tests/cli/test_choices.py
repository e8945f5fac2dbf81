"""The error for a missing argument or option lists its choices, if they are few."""

import pytest
from tests.cli.commands import ACCOUNT, ENDPOINT, failure, page
from tests.cli.fake_api import FakeApi


@pytest.mark.parametrize(
    ("arguments", "choices"),
    [
        ("endpoints create https://x.example/", "Choose one of: Rapids, 'Lake Club'"),
        ("endpoints pause", "Choose one of: ep_0e11 (https://x.example/)"),
        ("event-types show", "Choose one of: athlete.created, own.type"),
        ("members invite a@b.example", "Choose one of: member, manager, admin, owner"),
        ("replays show", "Choose one of: rpl_0c11 (running)"),
    ],
)
def test_a_missing_parameter_lists_its_choices(arguments: str, choices: str, api: FakeApi) -> None:
    api.responses["GET /v1/accounts"] = page(ACCOUNT, {**ACCOUNT, "id": "acc_0a12", "name": "Lake Club"})
    code, cause, remedy = failure(*arguments.split())
    assert (code, remedy) == (2, f"see `uplift-server {' '.join(arguments.split()[:2])} --help`")
    assert cause.startswith("Missing ")
    assert cause.endswith(choices)


def test_an_option_that_a_command_checks_lists_its_choices(api: FakeApi) -> None:
    chosen = "choose one of: Rapids"
    assert failure("events", "send", "athlete.created") == (2, "the option --account is missing", chosen)
    assert failure("deliveries", "resend", "--status", "failed") == (2, "the option --account is missing", chosen)
    assert failure("keys", "list")[2].endswith("Choose one of: Rapids")
    assert api.requests[-1].path == "/v1/accounts"


def test_many_choices_are_not_listed(api: FakeApi) -> None:
    api.responses["GET /v1/accounts"] = page(*({**ACCOUNT, "name": f"Club {number}"} for number in range(11)))
    cause = failure("members", "list")[1]
    assert cause == "Missing option '--account'. To list all accounts: `uplift-server accounts`"


def test_equal_names_are_not_choices(api: FakeApi) -> None:
    api.responses["GET /v1/accounts"] = page(ACCOUNT, {**ACCOUNT, "id": "acc_0a12"})
    assert failure("members", "list")[1].endswith("Choose one of: acc_0a11, acc_0a12")


def test_no_choices(api: FakeApi) -> None:
    api.responses["GET /v1/endpoints"] = page()
    assert failure("endpoints", "pause")[1].endswith("There are no endpoints yet")
    api.responses["GET /v1/endpoints"] = (503, {"code": "unavailable", "detail": "No."}, {})
    assert failure("endpoints", "pause")[1] == "Missing argument 'ENDPOINT'"
    api.responses["GET /v1/endpoints"] = page(ENDPOINT)
    assert failure("endpoints", "pause")[1].endswith("Choose one of: ep_0e11 (https://x.example/)")


def test_a_missing_database_has_no_choices(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setenv("UPLIFT_PORT", "1")
    assert failure("members", "list")[1] == "Missing option '--account'"
