"""API calls of commands: their requests, and the error for each kind of response."""

import socket
from collections.abc import Iterator

import pytest
from tests.cli.fake_api import FakeApi, Request, fake_api

from uplift_server.cli import lookup
from uplift_server.cli.advice import ADVICE
from uplift_webhooks.cli.kit.calls import CallRejected, Calls
from uplift_webhooks.cli.kit.errors import CliError, ExitCode


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with fake_api() as found:
        yield found


@pytest.fixture
def client(api: FakeApi) -> Iterator[Calls]:
    found = Calls(f"{api.url}/prefix/", "op_key", ADVICE, timeout_seconds=5)
    yield found
    found.close()


def test_a_call_has_key_and_account_and_a_post_an_idempotency_key(api: FakeApi, client: Calls) -> None:
    api.responses = {"POST /prefix/v1/events": (202, {"id": "e"}, {}), "DELETE /prefix/v1/x": (204, None, {})}
    assert client.post("/v1/events", {"type": "t"}, account="acc_1") == {"id": "e"}
    assert client.post("/v1/events", {"type": "t"}, idempotency_key="mine") == {"id": "e"}
    client.delete("/v1/x")
    first, second, third = api.requests
    assert first.headers["authorization"] == "Bearer op_key"
    assert first.headers["uplift-account"] == "acc_1"
    assert first.body == {"type": "t"}
    assert len(first.headers["idempotency-key"]) == 32
    assert second.headers["idempotency-key"] == "mine"
    assert "uplift-account" not in second.headers
    assert "idempotency-key" not in third.headers


@pytest.mark.parametrize(
    ("status", "problem", "code", "cause"),
    [
        (
            401,
            {"code": "unauthorized", "detail": "This key is not known."},
            ExitCode.NOT_ALLOWED,
            "This key is not known.",
        ),
        (403, {"code": "forbidden", "detail": "No scope."}, ExitCode.NOT_ALLOWED, "No scope."),
        (404, {"code": "not_found", "title": "Not found"}, ExitCode.NOT_FOUND, "Not found"),
        (409, {"code": "conflict", "detail": "In flight."}, ExitCode.FAILED, "In flight."),
        (
            422,
            {
                "code": "validation_failed",
                "detail": "d",
                "errors": [{"field": "url", "message": "m"}, {"field": "secret", "message": "n"}],
            },
            ExitCode.USAGE,
            "url: m; secret: n",
        ),
        (500, b"<html>", ExitCode.FAILED, "The server responded with 500."),
        (503, [], ExitCode.TRY_LATER, "The server responded with 503."),
    ],
)
def test_an_error_response_has_one_cause_one_fix_and_an_exit_code(
    api: FakeApi, client: Calls, status: int, problem: object, code: ExitCode, cause: str
) -> None:
    api.responses = {"GET /prefix/v1/x": (status, problem, {})}
    with pytest.raises(CallRejected) as caught:
        client.get("/v1/x")
    assert (caught.value.cause, caught.value.code, caught.value.status) == (cause, code, status)
    assert caught.value.remedy


@pytest.mark.parametrize(("seconds", "remedy"), [("1", "try again in 1 second"), ("7", "try again in 7 seconds")])
def test_the_retry_after_of_a_server_is_shown(api: FakeApi, client: Calls, seconds: str, remedy: str) -> None:
    api.responses = {"GET /prefix/v1/x": (503, {}, {"retry-after": seconds})}
    with pytest.raises(CallRejected) as caught:
        client.get("/v1/x")
    assert caught.value.remedy == remedy


def test_a_closed_connection_is_reopened_once(api: FakeApi, client: Calls) -> None:
    responses = iter([{"n": 1}, "hang up", {"n": 2}])
    api.responses = {"POST /prefix/v1/x": lambda _: next(responses)}
    assert [client.post("/v1/x")["n"], client.post("/v1/x")["n"]] == [1, 2]
    _, lost, repeated = api.requests
    assert lost.headers["idempotency-key"] == repeated.headers["idempotency-key"]


def test_errors_distinguish_no_response_from_another_server(api: FakeApi, client: Calls) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        unreachable = Calls(f"http://127.0.0.1:{bound.getsockname()[1]}", "", ADVICE, timeout_seconds=5)
        with pytest.raises(CliError, match=r"request to .* failed") as caught:
            unreachable.get("/v1/x")
    assert caught.value.code == ExitCode.TRY_LATER
    api.responses = {"GET /prefix/v1/x": (200, b"<html>", {}), "GET /prefix/v1/y": "hang up"}
    with pytest.raises(CliError, match="not an Uplift Webhooks server"):
        client.get("/v1/x")
    other = Calls(f"{api.url}/prefix", "", ADVICE, timeout_seconds=5)
    with pytest.raises(CliError, match=r"request to .* failed"):
        other.get("/v1/y")


def pages(*sizes: int) -> object:
    """Return a response function for a list whose pages have these sizes. Items are numbered across pages."""

    def respond(request: Request) -> object:
        number = int(request.query.get("cursor", "0"))
        first = sum(sizes[:number])
        data = [{"id": f"acc_{first + index}", "name": f"n{first + index}"} for index in range(sizes[number])]
        return {"data": data, "next_cursor": str(number + 1) if number + 1 < len(sizes) else None}

    return respond


def test_a_list_is_read_page_by_page_up_to_the_limit(api: FakeApi, client: Calls) -> None:
    api.responses = {"GET /prefix/v1/accounts": pages(3, 3, 2)}
    assert len(list(client.items("/v1/accounts", limit=100, status=None))) == 8
    assert "status" not in api.requests[0].query
    assert len(list(client.items("/v1/accounts", limit=4))) == 4
    assert api.requests[-1].query == {"limit": "4", "cursor": "1"}


def test_a_list_continues_after_an_empty_page(api: FakeApi, client: Calls) -> None:
    api.responses = {"GET /prefix/v1/accounts": pages(0, 2)}
    assert len(list(client.items("/v1/accounts", limit=100))) == 2


def test_an_object_is_found_by_id_prefix_or_name(api: FakeApi, client: Calls) -> None:
    data = [{"id": "acc_0a11", "name": "Rapids"}, {"id": "acc_0a22", "name": "Ridge"}, {"id": "acc_0b33", "name": "0a"}]
    api.responses = {
        "GET /prefix/v1/accounts": {"data": data, "next_cursor": None},
        "GET /prefix/v1/accounts/acc_0a11": data[0],
    }
    assert lookup.account(client, "acc_0a11") == data[0]
    assert len(api.requests) == 1
    assert lookup.account(client, "acc_0a2") == data[1]
    assert lookup.account(client, "0b") == data[2]
    assert lookup.account(client, "Rapids") == data[0]
    with pytest.raises(CliError, match="matches 2 IDs") as caught:
        lookup.account(client, "acc_0a")
    assert caught.value.code == ExitCode.USAGE
    assert "acc_0a11, acc_0a22" in caught.value.remedy
    data += [{"id": f"acc_0c{number}", "name": "Twin"} for number in range(7)]
    with pytest.raises(CliError, match="7 accounts have the name 'Twin'") as caught:
        lookup.account(client, "Twin")
    assert caught.value.remedy == "use one of these IDs: acc_0c0, acc_0c1, acc_0c2, acc_0c3, acc_0c4 and 2 more"
    with pytest.raises(CliError, match=r"there is no account '../x'") as caught:
        lookup.account(client, "../x")
    assert caught.value.code == ExitCode.NOT_FOUND
    assert api.requests[-2].path == "/prefix/v1/accounts/..%2Fx"


def test_a_lookup_raises_other_errors(api: FakeApi, client: Calls) -> None:
    api.responses = {"GET /prefix/v1/endpoints/ep_1": (503, {}, {})}
    with pytest.raises(CliError) as caught:
        lookup.endpoint(client, "ep_1")
    assert caught.value.code == ExitCode.TRY_LATER
