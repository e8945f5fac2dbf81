"""Errors that API calls have in common: their statuses, their codes, and the list of problems."""

import socket
import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from uplift_server.core import ids
from uplift_server.core.limits import ENDPOINTS_PER_ACCOUNT_MAX
from uplift_server.service import errors as service_errors
from uplift_server.service.errors import ServiceError
from uplift_server.service.problem_documents import STATUS, TITLES
from uplift_server.store.errors import Unavailable
from uplift_server.store.schema import endpoints

from .conftest import parse
from .malformed import MALFORMED

BAD_JSON = [b"", b"{", b"nope", b'{"name": NaN}', b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 10_000, b"{} {}"]


@pytest.mark.parametrize("raw", BAD_JSON, ids=lambda raw: raw[:12].decode("latin-1"))
def test_invalid_json_is_malformed(server: Any, raw: bytes) -> None:
    """The status is 400, also for excessive nesting."""
    response = server.operator.call("POST", "/v1/accounts", raw=raw)
    assert (response.status, response.code) == (400, "malformed_json")


@pytest.mark.parametrize(("raw", "reason"), MALFORMED)
def test_a_malformed_body_has_a_reason(server: Any, raw: bytes, reason: str) -> None:
    assert server.operator.call("POST", "/v1/accounts", raw=raw).json["detail"] == reason


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_must_be_an_object(server: Any, raw: bytes) -> None:
    """The status is 422, and the problem has no field."""
    assert server.operator.call("POST", "/v1/accounts", raw=raw).problems == {("", "type_object")}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_other_media_types_are_rejected(server: Any, content_type: str) -> None:
    """The status is 415. Parameters after the type are allowed."""
    response = server.operator.call("POST", "/v1/accounts", raw=b"{}", content_type=content_type)
    assert (response.status, response.code) == (415, "unsupported_media_type")
    fine = server.operator.call("POST", "/v1/accounts", {"name": "x"}, content_type="Application/JSON; charset=utf-8")
    assert fine.status == 201


def test_the_size_of_a_body_is_limited(server: Any) -> None:
    """The status is 413, whether the announced length or the received bytes exceed the limit."""
    large = server.operator.call("POST", "/v1/accounts", raw=b"x" * (1024 * 1024 + 1))
    assert (large.status, large.code) == (413, "payload_too_large")
    response = server.pool.urlopen(
        "POST",
        "/v1/accounts",
        body=(b"x" * 65536 for _ in range(20)),
        headers={"authorization": f"Bearer {server.operator_key}", "content-type": "application/json"},
        retries=False,
    )
    assert response.status == 413


def test_unknown_paths_and_methods_are_rejected(server: Any) -> None:
    """The status is 404 or 405. A 405 lists the methods of all routes for the path."""
    anonymous = server.client(None)
    for path in ("/nope", "/v1", "/v1/endpoints/", "/v1/endpoints/ep_1/x", "/healthz/", "/documents"):
        response = anonymous.get(path)
        assert (response.status, response.code) == (404, "not_found"), path
    response = anonymous.delete("/v1/endpoints")
    assert (response.status, response.code, response.headers["allow"]) == (405, "method_not_allowed", "GET, POST")
    assert anonymous.put("/v1/events", {}).headers["allow"] == "GET, POST"
    assert anonymous.post("/healthz").headers["allow"] == "GET, HEAD"
    assert anonymous.post("/docs").headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_checks_accept_head(server: Any, path: str) -> None:
    response = server.client(None).call("HEAD", path)
    assert (response.status, response.body) == (200, b"")
    assert response.headers["content-length"] == str(len(server.client(None).get(path).body))


def test_a_process_without_a_heartbeat_is_not_ready(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.services.context.engine.status, "heartbeat_age", 7_300)
    response = server.client(None).get("/readyz")
    assert (response.status, response.json["code"], response.headers["retry-after"]) == (503, "unavailable", "1")
    assert response.json["detail"].startswith("The last heartbeat of this process is 7 s old")
    assert server.client(None).get("/healthz").status == 200


def test_a_failing_database_is_unavailable(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The status is 503 with Retry-After. The process is alive but not ready."""

    async def fail(_body: Any) -> Any:
        raise Unavailable("the disk is full")

    account = server.account()
    owner = server.owner(account)
    with monkeypatch.context() as patched:
        patched.setattr(server.database, "read", fail)
        patched.setattr(server.database, "write", fail)
        patched.setattr(server.database, "write_with_events", fail)
        for response in (
            owner.get("/v1/endpoints"),
            owner.post("/v1/endpoints", {"url": "https://example.com/a"}),
            server.operator.delete(f"/v1/accounts/{account}"),
            server.client(None).get("/readyz"),
        ):
            assert (response.status, response.code) == (503, "unavailable")
            assert int(response.headers["retry-after"]) >= 1
            assert b"disk" not in response.body
        assert server.client(None).get("/healthz").status == 200
    assert server.client(None).get("/readyz").status == 200
    assert owner.get("/v1/endpoints").status == 200


def test_an_unexpected_error_has_no_details(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 500 with a code. Only the log has the traceback."""

    async def fail(_body: Any) -> Any:
        raise ZeroDivisionError("a secret detail")

    with monkeypatch.context() as patched:
        patched.setattr(server.database, "read", fail)
        response = server.operator.get("/v1/endpoints")
    assert (response.status, response.code) == (500, "internal_error")
    assert b"secret detail" not in response.body
    assert "secret detail" in capsys.readouterr().out


def test_every_code_has_a_status_and_a_title() -> None:
    """The codes of the services are included."""
    error_classes = [each for each in vars(service_errors).values() if isinstance(each, type)]
    codes = {each.code for each in error_classes if issubclass(each, ServiceError) and each is not ServiceError}
    assert codes <= STATUS.keys()
    assert STATUS.keys() == TITLES.keys()


def test_a_client_that_disconnects_during_its_body_is_no_error(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """The server ignores the request and logs no traceback."""
    head = f"POST /v1/accounts HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.operator_key}\r\n"
    with socket.create_connection((server.pool.host, server.pool.port), timeout=5) as client:
        client.sendall(f"{head}Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{{".encode())
        time.sleep(0.1)
    for _ in range(3):
        assert server.client(None).get("/healthz").status == 200
    assert "Traceback" not in "".join(capsys.readouterr())


INVALID: list[tuple[str, str, dict[str, Any]]] = [
    ("POST", "/v1/accounts", {"name": "", "contact_emails": ["no address"]}),
    ("POST", "/v1/accounts/{account}/keys", {"name": "", "scopes": ["no"]}),
    ("POST", "/v1/accounts/{account}/members", {"email": "no address", "role": "king"}),
    ("POST", "/v1/accounts/{account}/portal-links", {"email": "no address", "role": "king"}),
    ("PUT", "/v1/event-types/Wrong", {"description": 5, "schema": {"type": 5}, "api_version": ""}),
    ("POST", "/v1/endpoints", {"url": "x", "event_types": ["athlete.create"], "headers": {"Host": "x"}, "secret": "x"}),
    ("POST", "/v1/endpoints", {"url": "ftp://x", "description": 5, "max_in_flight": -1}),
    ("PATCH", "/v1/endpoints/{endpoint}", {"url": "x", "event_types": ["no.such"], "rate_limit_per_second": 0}),
    ("POST", "/v1/endpoints/{endpoint}/enable", {"held": "throw"}),
    ("POST", "/v1/endpoints/{endpoint}/test", {"type": "athlete.create"}),
    ("POST", "/v1/endpoints/{endpoint}/secret/rotate", {"secret": "x", "overlap_seconds": -1, "uplift_header": "x"}),
    ("POST", "/v1/replays", {"endpoint": "ep_x", "status": ["held"], "types": ["no.such"], "rate_per_second": 0}),
    ("POST", "/v1/replays", {"created_after": "x", "types": ["Wrong"], "dry_run": "x"}),
    (
        "POST",
        "/v1/deliveries/resend",
        {"endpoint": ["ep_x"], "type": ["no.such"], "status": ["held"], "outcome": ["x"]},
    ),
    ("POST", "/v1/listen-sessions", {"event_types": ["no.such"], "since": "x", "description": "x" * 5_000}),
]


@pytest.mark.parametrize(("method", "path", "body"), INVALID, ids=lambda each: each if isinstance(each, str) else "")
def test_an_unknown_field_hides_no_other_problem(server: Any, method: str, path: str, body: dict[str, Any]) -> None:
    account = server.account()
    caller = server.client(server.operator_key, account)
    endpoint = caller.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    path = path.format(account=account, endpoint=endpoint)
    found = caller.call(method, path, body).problems
    wrong = {field.partition(".")[0] for field, _ in found}
    assert wrong >= body.keys(), "each field is not valid"
    assert caller.call(method, path, {**body, "nope": 1}).problems == found | {("nope", "unknown_field")}


QUERIES = [
    ("/v1/endpoints", {"state": "x", "limit": "0", "cursor": "x"}),
    ("/v1/events", {"type": "no.such", "created_after": "x", "limit": "x", "order": "x"}),
    ("/v1/deliveries", {"status": "x", "type": "no.such", "outcome": "x", "status_code": "9", "endpoint": "ep_x"}),
    ("/v1/audit-log", {"action": "no.such", "created_after": "x", "cursor": "x"}),
    ("/v1/rejected-events", {"since": "x", "until": "x", "limit": "0"}),
    ("/v1/stats", {"period": "x"}),
]


@pytest.mark.parametrize(("path", "query"), QUERIES)
def test_an_unknown_parameter_hides_no_other_problem(server: Any, path: str, query: dict[str, str]) -> None:
    caller = server.owner(server.account())
    text = "&".join(f"{name}={value}" for name, value in query.items())
    found = caller.get(f"{path}?{text}").problems
    assert {field for field, _ in found} == query.keys()
    assert caller.get(f"{path}?{text}&nope=1").problems == found | {("nope", "unknown_field")}


# ---- bodies and queries that could delay other callers


def call_quickly(call: Callable[[], Any]) -> Any:
    """Make a call that must take less than a second of CPU time, and return its response."""
    began = time.process_time()
    response = call()
    assert time.process_time() - began < 1
    return response


@pytest.mark.timing
def test_very_long_lists_and_objects_are_rejected_quickly(server: Any) -> None:
    owner = server.owner(server.account())
    url = {"url": "https://example.com/a"}
    for field, value in (("event_types", [1] * 300_000), ("headers", {f"x{n}": 1 for n in range(60_000)})):
        response = call_quickly(lambda: owner.post("/v1/endpoints", {**url, field: value, "nope": 1}))  # noqa: B023
        assert response.problems == {(field, "too_many"), ("nope", "unknown_field")}
    deep = b'{"url":"https://example.com/a","event_types":[' + b"[]," * 300_000 + b"1]}"
    assert call_quickly(lambda: owner.call("POST", "/v1/endpoints", raw=deep)).code == "payload_too_large"
    response = call_quickly(lambda: owner.post("/v1/endpoints", {"url": [1] * 300_000}))
    assert response.problems == {("url", "type_text"), ("url", "too_many")}
    example = {"object": {f"k{n}": n for n in range(2_000)}}
    assert server.operator.put("/v1/event-types/many.keys", {"description": "x", "example": example}).status == 201


LONG = "x" * 300_000
ROTATE = "/v1/endpoints/{endpoint}/secret/rotate"
BODIES: list[tuple[str, str, dict[str, Any], set[str]]] = [
    ("POST", "/v1/accounts", {"name": "", "contact_emails": ["x"]}, {"name", "contact_emails.0"}),
    ("PATCH", "/v1/accounts/{account}", {"name": "", "contact_emails": 5}, {"name", "contact_emails"}),
    ("POST", "/v1/accounts/{account}/keys", {"name": "", "scopes": ["x"]}, {"name", "scopes"}),
    ("POST", "/v1/accounts/{account}/portal-links", {"email": "x", "role": "x"}, {"email", "role"}),
    ("POST", "/v1/accounts/{account}/members", {"email": "x", "role": 5}, {"email", "role"}),
    ("PUT", "/v1/event-types/X", {"schema": {"type": 5}, "description": 5}, {"name", "schema", "description"}),
    ("PUT", "/v1/event-types/x", {"schema": {"$ref": "#x"}, "example": LONG, "description": ""}, {"schema", "example"}),
    ("POST", "/v1/endpoints", {"url": "x", "headers": {"host": "x"}, "secret": "s"}, {"url", "headers.host", "secret"}),
    ("PATCH", "/v1/endpoints/{endpoint}", {"url": "x", "max_in_flight": 0}, {"url", "max_in_flight"}),
    ("POST", "/v1/endpoints/{endpoint}/enable", {"held": "x"}, {"held"}),
    ("POST", "/v1/endpoints/{endpoint}/test", {"type": "no.such"}, {"type"}),
    ("POST", ROTATE, {"secret": "s", "overlap_seconds": -1}, {"secret", "overlap_seconds"}),
    ("POST", "/v1/replays", {"endpoint": "ep_x", "types": ["no.such"], "status": 5}, {"endpoint", "types", "status"}),
    ("POST", "/v1/listen-sessions", {"event_types": ["no.such"], "since": "x"}, {"event_types", "since"}),
]  # fmt: skip
QUERIES: list[tuple[str, set[str]]] = [
    ("/v1/events?type=no.such&created_after=x&cursor=x&limit=0", {"type", "created_after", "cursor", "limit"}),
    ("/v1/deliveries?status=x&type=no.such&endpoint=ep_x&cursor=x", {"status", "type", "endpoint", "cursor"}),
    ("/v1/endpoints?state=x&text=%00&cursor=x", {"state", "text", "cursor"}),
    ("/v1/endpoints/{endpoint}/deliveries?type=no.such&limit=x&cursor=x", {"type", "limit", "cursor"}),
    ("/v1/stats?period=x", {"period"}),
    ("/v1/audit-log?action=x&created_before=x&cursor=x", {"action", "created_before", "cursor"}),
]


def test_every_problem_of_a_request_is_reported_at_once(server: Any) -> None:
    """Unknown and invalid fields and parameters are reported together."""
    account = server.account()
    caller = server.client(server.operator_key, account)
    endpoint = caller.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    names = {"account": account, "endpoint": endpoint}
    for method, path, body, fields in BODIES:
        response = caller.call(method, path.format(**names), {**body, "nope": 1}, idempotency_key="a" * 300)
        creates = method == "POST" and not path.endswith("/enable")
        found = {field for field, _ in response.problems}
        assert found == fields | {"nope"} | ({"Idempotency-Key"} if creates else set()), path
    for path, fields in QUERIES:
        response = caller.get(path.format(**names) + "&nope=1")
        assert {field for field, _ in response.problems} == fields | {"nope"}, path


@pytest.mark.timing
def test_the_number_of_reported_problems_is_limited(server: Any) -> None:
    """Covers unknown fields, invalid entries and unknown parameters. The response says that there are more."""
    owner = server.owner(server.account())
    many = {f"f{n}": n for n in range(60_000)}
    bodies = [{"url": "https://example.com/a", **many}, {"url": "https://example.com/a", "event_types": [1] * 900}]
    responses = [call_quickly(lambda: owner.post("/v1/endpoints", body)) for body in bodies]  # noqa: B023
    responses.append(call_quickly(lambda: owner.get("/v1/endpoints?" + "&".join(f"f{n}=" for n in range(8_000)))))
    for response in responses:
        assert response.code == "validation_failed"
        assert len(response.json["errors"]) == 100
        assert "More than 100" in response.json["detail"]
    exactly = {f"f{n}": n for n in range(100)}
    response = owner.post("/v1/endpoints", {"url": "https://example.com/a", **exactly}).json
    assert (len(response["errors"]), response["detail"]) == (100, "100 fields are not valid.")


def test_the_number_of_endpoints_of_an_account_is_limited(server: Any) -> None:
    """Deleted endpoints and those of other accounts do not count."""
    account = server.account()
    owner = server.owner(account)
    first = owner.post("/v1/endpoints", {"url": "https://example.com/a"}).json["id"]
    account_seq = server.services.context.cache.accounts_by_id[parse(ids.ACCOUNT, account)].seq

    def fill(connection: Any) -> None:
        columns = [column for column in endpoints.c if column.name not in {"seq", "id"}]
        row = sa.select(*columns).where(endpoints.c.account_seq == account_seq)
        values = dict(connection.execute(row).mappings().one())
        connection.execute(
            sa.insert(endpoints), [{**values, "id": n.to_bytes(16, "big")} for n in range(1, ENDPOINTS_PER_ACCOUNT_MAX)]
        )

    server.run(lambda: server.database.write(fill))
    rejected = owner.post("/v1/endpoints", {"url": "https://example.com/b"})
    assert (rejected.status, rejected.code) == (409, "conflict")
    assert "1000 endpoints" in rejected.json["detail"]
    assert server.owner(server.account()).post("/v1/endpoints", {"url": "https://example.com/b"}).status == 201
    assert owner.delete(f"/v1/endpoints/{first}").status == 204
    assert owner.post("/v1/endpoints", {"url": "https://example.com/b"}).status == 201
    assert owner.post("/v1/endpoints", {"url": "https://example.com/c"}).status == 409
