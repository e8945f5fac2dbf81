"""API client: requests, responses and retries."""

import pickle
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from uplift_webhooks import Event, __version__
from uplift_webhooks.api import ApiError, ApiUnreachable, Client, FieldError, Page

from .scripted_api import ScriptedApi, hang_up, json_response, problem_response

EVENT = "0197f0c2-0000-7000-8000-000000000001"


def test_requests_and_responses_are_json(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({"id": "ep_1", "name": "Zoë"}, 201)]

    got = client.request("POST", "/v1/endpoints", body={"url": "https://é.example"}, headers={"X-Trace": "7"})

    assert got == {"id": "ep_1", "name": "Zoë"}
    [request] = api.requests
    assert (request.method, request.target, request.json) == ("POST", "/v1/endpoints", {"url": "https://é.example"})
    assert request.headers["authorization"] == "Bearer sk_secret_of_the_test"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["user-agent"] == f"uplift-webhooks/{__version__}"
    assert request.headers["x-trace"] == "7"
    assert "uplift-account" not in request.headers


def test_empty_responses_are_none_and_none_parameters_are_omitted(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response(status=204), json_response(status=204)]
    timestamp = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

    assert (
        client.request("GET", "/v1/x", query={"a": None, "b": "c d&", "after": timestamp, "yes": True, "no": False})
        is None
    )
    client.request("DELETE", "/v1/x", query={"a": None})

    targets = [request.target for request in api.requests]
    assert targets == ["/v1/x?b=c+d%26&after=2026-01-02T03%3A04%3A05%2B00%3A00&yes=true&no=false", "/v1/x"]
    with pytest.raises(ValueError, match="time zone"):
        client.request("GET", "/v1/x", query={"after": datetime(2026, 1, 2)})  # noqa: DTZ001 - without a time zone
    with pytest.raises(ValueError, match="start with"):
        client.request("GET", "v1/x")


def test_an_update_sends_the_version_of_an_earlier_response(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({"id": "ep_1"}, etag='"v1"'), json_response({"id": "ep_1"}, etag='"v2"')]
    endpoint = client.endpoints.get("ep_1")
    copied = pickle.loads(pickle.dumps(endpoint))
    changed = client.endpoints.update("ep_1", if_match=copied, description="a")
    assert changed == endpoint == {"id": "ep_1"}
    api.script = [problem_response(412, "precondition_failed"), json_response({"id": "ep_1"})]
    with pytest.raises(ApiError, match="precondition_failed"):
        client.endpoints.update("ep_1", if_match=endpoint, description="b")
    client.endpoints.update("ep_1", if_match='"v2"', description="b")
    assert [each.headers.get("if-match") for each in api.requests] == [None, '"v1"', '"v1"', '"v2"']
    assert api.requests[1].json == {"description": "a"}
    with pytest.raises(ValueError, match="if_match"):
        client.endpoints.update("ep_1", if_match={"id": "ep_1"}, description="c")


def test_timestamps_in_bodies_can_be_datetimes_with_a_time_zone(api: ScriptedApi, client: Client) -> None:
    timestamp, written = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05+00:00"
    api.script = [
        json_response({"id": "e"}),
        json_response({"data": []}),
        json_response({"id": "rpl_1"}),
        json_response({"id": "lsn_1"}),
    ]

    client.events.send("a.b", {"at": timestamp}, expires_at=timestamp)
    client.events.send_batch([{"type": "a.b", "data": {}, "expires_at": timestamp}])
    client.replays.create("ep_1", created_after=timestamp, created_before="2026-02-01T00:00:00Z")
    client.listen_sessions.create(since=timestamp)

    sent, batch, replay, session = (request.json for request in api.requests)
    assert (sent["expires_at"], sent["data"], batch["events"][0]["expires_at"]) == (written, {"at": written}, written)
    assert (replay["created_after"], replay["created_before"]) == (written, "2026-02-01T00:00:00Z")
    assert session["since"] == written
    naive = datetime(2026, 1, 2)  # noqa: DTZ001 - without a time zone
    for call in (
        lambda: client.events.send("a.b", {}, expires_at=naive),
        lambda: client.replays.create("ep_1", created_after=naive),
        lambda: client.listen_sessions.create(since=naive),
    ):
        with pytest.raises(ValueError, match="time zone"):
            call()
    with pytest.raises(ValueError, match="JSON cannot contain the type set"):
        client.events.send("a.b", {"tags": {1}})
    assert len(api.requests) == 4


def test_an_operator_key_from_the_environment_acts_for_an_account(
    api: ScriptedApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UPLIFT_API_URL", f"{api.url}/behind/\n")
    monkeypatch.setenv("UPLIFT_API_KEY", "op_key\n")
    api.script = [json_response({})]

    with Client(account="acc_1") as client:
        client.request("GET", "/v1/x")

    [request] = api.requests
    assert request.target == "/behind/v1/x"
    assert (request.headers["authorization"], request.headers["uplift-account"]) == ("Bearer op_key", "acc_1")


def test_public_calls_need_no_key(api: ScriptedApi) -> None:
    api.script = [json_response({"current": ["54.245.28.22"], "upcoming": []})]

    with Client(api.url) as client:
        assert client.source_ips()["current"] == ["54.245.28.22"]

    assert "authorization" not in api.requests[0].headers


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"api_url": "webhooks.example"},
        {"api_url": "ftp://webhooks.example"},
        {"api_url": "https://"},
        {"api_url": "https://user:sk_hidden@webhooks.example"},
        {"api_url": "https://webhooks.example?key=sk_hidden"},
        {"api_url": "https://webhooks.example:port"},
        {"api_url": "https://webhöoks.example"},
        {"api_url": "https://webhooks.example", "api_key": "sk_hidden\r\nX-Other: 1"},
        {"api_url": "https://webhooks.example", "api_key": "sk hidden"},
        {"api_url": "https://webhooks.example", "api_key": b"sk_hidden"},
        {"api_url": "https://webhooks.example", "account": ""},
        {"api_url": "https://webhooks.example", "timeout_seconds": 0},
        {"api_url": "https://webhooks.example", "retries": -1},
    ],
)
def test_invalid_arguments_are_rejected_without_showing_the_key(arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"API URL|api_url|api_key|account|timeout_seconds") as caught:
        Client(**arguments)
    assert "hidden" not in str(caught.value)


def test_an_api_error_has_all_details(api: ScriptedApi, client: Client) -> None:
    errors = [{"field": "url", "code": "https_required", "message": "Use https."}, "not an object"]
    api.script = [problem_response(422, "validation_failed", "1 field is not valid.", errors=errors)]

    with pytest.raises(ApiError) as caught:
        client.endpoints.create("http://example.com", secret="s" * 20)

    error = caught.value
    assert (error.status, error.code, error.detail) == (422, "validation_failed", "1 field is not valid.")
    assert error.errors == (FieldError("url", "https_required", "Use https."),)
    assert error.retry_after_seconds is None
    assert str(error) == "1 field is not valid. url: Use https. [422 validation_failed]"
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), copy.errors, copy.retry_after_seconds) == (str(error), error.errors, None)


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (json_response(status=500), "The server responded with 500. [500]"),
        (json_response(["x"], 502), "The server responded with 502. [502]"),
        (b"HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\n<html>", "The server responded with 500. [500]"),
        (json_response({"title": "Gone", "code": 5, "errors": 7}, 410), "Gone [410 5]"),
        (
            json_response(status=302, location="https://elsewhere.example"),
            "The server responded with 302, a redirect. Set api_url to the final URL. [302]",
        ),
    ],
)
def test_every_error_response_has_a_message(api: ScriptedApi, client: Client, script: bytes, text: str) -> None:
    api.script = [script]

    with pytest.raises(ApiError) as caught:
        client.endpoints.get("ep_1")
    assert str(caught.value) == text
    assert len(api.requests) == 1


@pytest.mark.parametrize("method", ["GET", "POST", "PATCH"])
def test_a_retry_after_header_causes_a_retry(
    api: ScriptedApi, client: Client, delays: list[float], method: str
) -> None:
    api.script = [
        problem_response(503, "unavailable", retry_after="2"),
        problem_response(429, "rate_limited", retry_after="3"),
        json_response({"id": "x"}),
    ]

    assert client.request(method, "/v1/x") == {"id": "x"}

    assert delays == [2, 3]
    assert len({request.headers.get("idempotency-key") for request in api.requests}) == 1
    assert ("idempotency-key" in api.requests[0].headers) == (method == "POST")


@pytest.mark.parametrize(("key", "has_header"), [("k", False), (None, True)])
def test_an_idempotency_key_in_the_body_replaces_the_header(
    api: ScriptedApi, client: Client, key: str | None, has_header: bool
) -> None:
    """The server rejects an event whose two keys differ."""
    api.script = [json_response({"id": "x"})]

    client.request("POST", "/v1/events", body={"type": "a.b", "data": {}, "idempotency_key": key})

    [request] = api.requests
    assert request.json["idempotency_key"] == key
    assert ("idempotency-key" in request.headers) == has_header


def test_a_header_can_contain_latin_1(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({"id": "x"})]
    client.endpoints.create("https://x.example", idempotency_key="Zürich-1")
    [request] = api.requests
    assert request.headers["idempotency-key"] == "Zürich-1"


@pytest.mark.parametrize("key", ["Łódź-1", "two\r\nlines"])
def test_a_header_that_http_cannot_carry_is_named(api: ScriptedApi, client: Client, key: str) -> None:
    with pytest.raises(
        ValueError, match="The header idempotency-key must contain only printable characters of Latin-1"
    ):
        client.endpoints.create("https://x.example", idempotency_key=key)
    assert api.requests == []


@pytest.mark.parametrize(
    ("method", "rejection"),
    [
        ("GET", problem_response(503, "unavailable", retry_after="31")),
        ("POST", problem_response(503, "unavailable")),
        ("POST", problem_response(429, "rate_limited", retry_after="Wed, 25 Nov 2026 15:00:00 GMT")),
        ("GET", problem_response(500, "internal_error", retry_after="1")),
    ],
)
def test_errors_that_are_not_retried(
    api: ScriptedApi, client: Client, delays: list[float], method: str, rejection: bytes
) -> None:
    api.script = [rejection]

    with pytest.raises(ApiError) as caught:
        client.request(method, "/v1/x")

    assert delays == []
    assert caught.value.retry_after_seconds in {None, 1, 31}


def test_retries_are_limited(api: ScriptedApi, client: Client, delays: list[float]) -> None:
    api.script = [problem_response(503, "unavailable")] * 3

    with pytest.raises(ApiError):
        client.request("GET", "/v1/x")

    assert len(api.requests) == 3
    assert 0.25 <= delays[0] <= 0.75
    assert 0.5 <= delays[1] <= 1.5


def test_a_get_request_without_a_response_is_retried(api: ScriptedApi, client: Client, delays: list[float]) -> None:
    api.script = [hang_up, hang_up, json_response({"id": "x"})]

    assert client.request("GET", "/v1/x") == {"id": "x"}
    assert len(delays) == 2


def test_a_response_from_another_kind_of_server_is_not_retried(
    api: ScriptedApi, client: Client, delays: list[float]
) -> None:
    api.script = [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"]

    with pytest.raises(ApiUnreachable, match="not an Uplift Webhooks server"):
        client.request("GET", "/v1/x")

    assert delays == []


def test_a_post_request_without_a_response_is_not_retried(
    api: ScriptedApi, client: Client, delays: list[float]
) -> None:
    api.script = [hang_up]

    with pytest.raises(ApiUnreachable, match="The request to"):
        client.request("POST", "/v1/x")
    assert (len(api.requests), delays) == (1, [])


def test_a_response_without_json_is_from_another_server(api: ScriptedApi, client: Client, delays: list[float]) -> None:
    api.script = [b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"] * 3

    with pytest.raises(ApiUnreachable, match="is not an Uplift Webhooks server"):
        client.request("GET", "/v1/x")


Call = Callable[[Client], object]
OBJECT_CALLS: list[tuple[Call, str, str, Any]] = [
    (lambda c: c.endpoints.get("ep_1"), "GET", "/v1/endpoints/ep_1", None),
    (
        lambda c: c.endpoints.create("https://x.example", event_types=("a.*",), max_in_flight=3, idempotency_key="k"),
        "POST",
        "/v1/endpoints",
        {"url": "https://x.example", "event_types": ["a.*"], "max_in_flight": 3},
    ),
    (
        lambda c: c.endpoints.create("https://x.example", event_types="a.*"),
        "POST",
        "/v1/endpoints",
        {"url": "https://x.example", "event_types": ["a.*"]},
    ),
    (
        lambda c: c.replays.create("ep_1", status="failed"),
        "POST",
        "/v1/replays",
        {"endpoint": "ep_1", "status": ["failed"]},
    ),
    (
        lambda c: c.endpoints.update("ep_1", description=None, event_types=["b"]),
        "PATCH",
        "/v1/endpoints/ep_1",
        {"description": None, "event_types": ["b"]},
    ),
    (
        lambda c: c.endpoints.create("https://x.example", filter={"a": [1]}),
        "POST",
        "/v1/endpoints",
        {"url": "https://x.example", "filter": {"a": [1]}},
    ),
    (
        lambda c: c.endpoints.put("mine", "https://x.example", filter={"a": [1]}),
        "PUT",
        "/v1/endpoints/mine",
        {"url": "https://x.example", "filter": {"a": [1]}},
    ),
    (
        lambda c: c.endpoints.filter_preview({"a": [1]}, event_types=("a.*",), limit=3),
        "POST",
        "/v1/endpoints/filter-preview",
        {"filter": {"a": [1]}, "event_types": ["a.*"], "limit": 3},
    ),
    (lambda c: c.endpoints.filter_preview(None), "POST", "/v1/endpoints/filter-preview", {"filter": None}),
    (lambda c: c.endpoints.pause("ep_1"), "POST", "/v1/endpoints/ep_1/pause", None),
    (lambda c: c.endpoints.enable("ep_1"), "POST", "/v1/endpoints/ep_1/enable", {"held": "send"}),
    (lambda c: c.endpoints.enable("ep_1", "drop"), "POST", "/v1/endpoints/ep_1/enable", {"held": "drop"}),
    (lambda c: c.endpoints.test("ep_1"), "POST", "/v1/endpoints/ep_1/test", {}),
    (lambda c: c.endpoints.test("ep_1", "a.b"), "POST", "/v1/endpoints/ep_1/test", {"type": "a.b"}),
    (lambda c: c.endpoints.secret("ep_1"), "GET", "/v1/endpoints/ep_1/secret", None),
    (
        lambda c: c.endpoints.rotate_secret("ep_1", overlap_seconds=0, uplift_header="new"),
        "POST",
        "/v1/endpoints/ep_1/secret/rotate",
        {"overlap_seconds": 0, "uplift_header": "new"},
    ),
    (lambda c: c.events.get("e/../x"), "GET", "/v1/events/e%2F..%2Fx", None),
    (
        lambda c: c.events.send("a.b", {"n": 1}, id=EVENT, idempotency_key="Łódź-1"),
        "POST",
        "/v1/events",
        {"type": "a.b", "data": {"n": 1}, "id": EVENT, "idempotency_key": "Łódź-1"},
    ),
    (lambda c: c.deliveries.get("dlv_1"), "GET", "/v1/deliveries/dlv_1", None),
    (lambda c: c.deliveries.resend("dlv_1"), "POST", "/v1/deliveries/dlv_1/resend", None),
    (lambda c: c.deliveries.cancel("dlv_1"), "POST", "/v1/deliveries/dlv_1/cancel", None),
    (lambda c: c.event_types.get("a.b"), "GET", "/v1/event-types/a.b", None),
    (
        lambda c: c.listen_sessions.create(since=datetime(2026, 1, 1, tzinfo=UTC)),
        "POST",
        "/v1/listen-sessions",
        {"since": "2026-01-01T00:00:00+00:00"},
    ),
    (
        lambda c: c.listen_sessions.create(event_types=iter(["a"]), since="2026-01-01T00:00:00Z"),
        "POST",
        "/v1/listen-sessions",
        {"event_types": ["a"], "since": "2026-01-01T00:00:00Z"},
    ),
    (
        lambda c: c.listen_sessions.create(description="ana-laptop", idempotency_key="k"),
        "POST",
        "/v1/listen-sessions",
        {"description": "ana-laptop"},
    ),
    (lambda c: c.listen_sessions.get("lsn_1"), "GET", "/v1/listen-sessions/lsn_1", None),
    (lambda c: c.listen_sessions.test("lsn_1", "a.b"), "POST", "/v1/listen-sessions/lsn_1/test", {"type": "a.b"}),
]


@pytest.mark.parametrize(("call", "method", "target", "body"), OBJECT_CALLS)
def test_calls_that_return_one_object(
    api: ScriptedApi, client: Client, call: Call, method: str, target: str, body: Any
) -> None:
    api.script = [json_response({"id": "x"})]

    assert call(client) == {"id": "x"}

    [request] = api.requests
    assert (request.method, request.target, request.json if request.body else None) == (method, target, body)
    if body is not None and "idempotency_key" not in body and "idempotency_key" in call.__code__.co_consts.__repr__():  # type: ignore[attr-defined]
        assert request.headers["idempotency-key"] == "k"


@pytest.mark.parametrize("call", [call for call, *_ in OBJECT_CALLS])
def test_a_response_of_another_shape_is_from_another_server(api: ScriptedApi, client: Client, call: Call) -> None:
    api.script = [json_response(["x"])]

    with pytest.raises(ApiUnreachable, match="not from an Uplift Webhooks server"):
        call(client)


def test_delete_calls_return_nothing(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response(status=204), json_response(status=204)]

    client.endpoints.delete("ep_1")
    client.listen_sessions.delete("lsn_1")

    assert [(request.method, request.target) for request in api.requests] == [
        ("DELETE", "/v1/endpoints/ep_1"),
        ("DELETE", "/v1/listen-sessions/lsn_1"),
    ]


@pytest.mark.parametrize("name", ["", ".", ".."])
def test_an_id_that_changes_the_path_is_rejected(client: Client, name: str) -> None:
    with pytest.raises(ValueError, match="An ID"):
        client.endpoints.delete(name)


LISTS: list[tuple[Call, str]] = [
    (lambda c: c.endpoints.list(), "/v1/endpoints"),
    (lambda c: c.endpoints.list(state="failing", text="a b"), "/v1/endpoints?state=failing&text=a+b"),
    (lambda c: c.endpoints.list(cause="dns"), "/v1/endpoints?cause=dns"),
    (lambda c: c.endpoints.list(limit=5, cursor="c+"), "/v1/endpoints?limit=5&cursor=c%2B"),
    (lambda c: c.events.list(type="a.b", order="asc"), "/v1/events?type=a.b&order=asc"),
    (lambda c: c.events.deliveries("e", limit=1), "/v1/events/e/deliveries?limit=1"),
    (lambda c: c.events.explain("e", endpoint="ep_1"), "/v1/events/e/explain?endpoint=ep_1"),
    (
        lambda c: c.deliveries.list(status="failed", endpoint="ep_1", created_after="2026-01-01T00:00:00Z"),
        "/v1/deliveries?status=failed&endpoint=ep_1&created_after=2026-01-01T00%3A00%3A00Z",
    ),
    (lambda c: c.deliveries.attempts("dlv_1"), "/v1/deliveries/dlv_1/attempts"),
    (lambda c: c.event_types.list(), "/v1/event-types"),
    (lambda c: c.listen_sessions.list(), "/v1/listen-sessions"),
    (lambda c: c.listen_sessions.answers("lsn_1", limit=3), "/v1/listen-sessions/lsn_1/answers?limit=3"),
]


@pytest.mark.parametrize(("call", "target"), LISTS)
def test_lists(api: ScriptedApi, client: Client, call: Call, target: str) -> None:
    api.script = [
        json_response({"data": [{"id": "x"}], "next_cursor": "next"}),
        json_response({"data": []}),
        json_response({"data": {}}),
    ]

    assert call(client) == Page([{"id": "x"}], "next", has_more=True)
    assert call(client) == Page([], None, has_more=False)
    assert api.requests[0].target == target
    with pytest.raises(ApiUnreachable, match="no list"):
        call(client)


ITERATIONS: list[tuple[Callable[[Client], Any], str]] = [
    (lambda c: c.endpoints.iterate(), "/v1/endpoints?limit=200"),
    (lambda c: c.events.iterate(type="a.b", created_before="i"), "/v1/events?limit=200&type=a.b&created_before=i"),
    (lambda c: c.deliveries.iterate(status="held", type="a"), "/v1/deliveries?limit=200&status=held&type=a"),
    (lambda c: c.event_types.iterate(), "/v1/event-types?limit=200"),
    (lambda c: c.listen_sessions.iterate(), "/v1/listen-sessions?limit=200"),
]


@pytest.mark.parametrize(("call", "target"), ITERATIONS)
def test_iterate_reads_all_pages(api: ScriptedApi, client: Client, call: Callable[[Client], Any], target: str) -> None:
    api.script = [
        json_response({"data": [{"id": 1}, {"id": 2}], "next_cursor": "a"}),
        json_response({"data": [], "next_cursor": "b"}),
        json_response({"data": [{"id": 3}], "next_cursor": None}),
    ]
    found = call(client)
    assert api.requests == []

    assert [each["id"] for each in found] == [1, 2, 3]

    assert [request.target for request in api.requests] == [target, f"{target}&cursor=a", f"{target}&cursor=b"]


def test_an_event_can_be_fetched_as_it_was_sent(api: ScriptedApi, client: Client) -> None:
    envelope = {"id": EVENT, "type": "a.b", "created": 5, "data": {"object": {"n": 1}}}
    api.script = [
        json_response({"id": EVENT, "body": envelope}),
        json_response({"id": EVENT}),
        json_response({"body": {"id": 5}}),
    ]

    event = client.events.fetch(EVENT)

    assert isinstance(event, Event)
    assert (event.id, event.type, event.created, event.data.object) == (EVENT, "a.b", 5, {"n": 1})
    with pytest.raises(ApiUnreachable, match="no event body"):
        client.events.fetch(EVENT)
    with pytest.raises(ApiUnreachable, match="not an event"):
        client.events.fetch(EVENT)


def test_a_fetched_test_event_has_the_mark(api: ScriptedApi, client: Client) -> None:
    """Servers of earlier releases mark the event, but not its body."""
    envelope = {"id": EVENT, "type": "a.b", "created": 5, "data": {"object": {}}}
    marked = {**envelope, "test": True}
    api.script = [
        json_response({"id": EVENT, "test": True, "body": envelope}),
        json_response({"id": EVENT, "test": True, "body": marked}),
        json_response({"id": EVENT, "test": False, "body": envelope}),
    ]

    fetched = [client.events.fetch(EVENT) for _ in range(3)]
    assert [event.test for event in fetched] == [True, True, False]
    assert fetched[0].raw == marked


def test_a_fetch_of_an_erased_event_has_a_code_of_its_own(api: ScriptedApi, client: Client) -> None:
    api.script = [json_response({"id": EVENT, "erased_at": "2026-01-01T00:00:00.000Z", "body": None})]

    with pytest.raises(ApiError, match="erased") as caught:
        client.events.fetch(EVENT)
    assert caught.value.code == "event_erased"


def test_content_returns_the_exact_bytes(api: ScriptedApi, client: Client) -> None:
    written = b'{"a":1.0, "b":"\\u00e9"}'
    api.script = [
        b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(written), written),
        json_response(status=404),
    ]

    assert client.content("/v1/x", query={"limit": 3}) == written
    assert api.requests[0].target == "/v1/x?limit=3"
    with pytest.raises(ApiError, match="404"):
        client.content("/v1/x")
