"""Every way a request can be refused before or besides its meaning."""

from typing import Any

import pytest

from uplift_server.api.problems import STATUS, TITLES
from uplift_server.service import errors as service_errors
from uplift_server.service.errors import ServiceError
from uplift_server.store.errors import Unavailable

BAD_JSON = [b"", b"{", b"nope", b'{"name": NaN}', b'{"name": "\xff"}', b'{"name": "\\ud800"}', b"[" * 100_000, b"{} {}"]


@pytest.mark.parametrize("raw", BAD_JSON, ids=lambda raw: raw[:12].decode("latin-1"))
def test_what_is_no_json_is_malformed(server: Any, raw: bytes) -> None:
    """400, whatever is wrong with it, also nesting that no parser should follow."""
    answer = server.operator.call("POST", "/v1/accounts", raw=raw)
    assert (answer.status, answer.code) == (400, "malformed_json")


@pytest.mark.parametrize("raw", [b"[]", b'"x"', b"1", b"null", b"true"])
def test_a_body_is_an_object(server: Any, raw: bytes) -> None:
    """422 at no field."""
    assert server.operator.call("POST", "/v1/accounts", raw=raw).problems == {("", "type_object")}


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/jsonx"])
def test_other_media_types(server: Any, content_type: str) -> None:
    """415; parameters after the type are fine."""
    answer = server.operator.call("POST", "/v1/accounts", raw=b"{}", content_type=content_type)
    assert (answer.status, answer.code) == (415, "unsupported_media_type")
    fine = server.operator.call("POST", "/v1/accounts", {"name": "x"}, content_type="Application/JSON; charset=utf-8")
    assert fine.status == 201


def test_bodies_are_capped(server: Any) -> None:
    """413 by the length that is announced, and by the bytes that come without one."""
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


def test_unknown_paths_and_methods(server: Any) -> None:
    """404 and 405 as any other refusal; 405 says what the path takes, on all its routes."""
    nobody = server.client(None)
    for path in ("/nope", "/v1", "/v1/endpoints/", "/v1/endpoints/ep_1/x", "/docs/"):
        answer = nobody.get(path)
        assert (answer.status, answer.code) == (404, "not_found"), path
    answer = nobody.delete("/v1/endpoints")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "method_not_allowed", "GET, POST")
    assert nobody.put("/v1/events", {}).headers["allow"] == "GET, POST"
    assert nobody.post("/healthz").headers["allow"] == "GET"


def test_a_database_that_cannot_is_unavailable(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 with Retry-After; the process lives, and says that it is not ready."""

    async def fail(_body: Any) -> Any:
        raise Unavailable("the disk is full")

    account = server.account()
    owner = server.owner(account)
    with monkeypatch.context() as patched:
        patched.setattr(server.database, "read", fail)
        patched.setattr(server.database, "write", fail)
        patched.setattr(server.database, "write_with_events", fail)
        for answer in (
            owner.get("/v1/endpoints"),
            owner.post("/v1/endpoints", {"url": "https://example.com/a"}),
            server.operator.delete(f"/v1/accounts/{account}"),
            server.client(None).get("/readyz"),
        ):
            assert (answer.status, answer.code) == (503, "unavailable")
            assert int(answer.headers["retry-after"]) >= 1
            assert b"disk" not in answer.body
        assert server.client(None).get("/healthz").status == 200
    assert server.client(None).get("/readyz").status == 200
    assert owner.get("/v1/endpoints").status == 200


def test_what_nobody_foresaw_is_told_without_detail(
    server: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """500 with a code, the traceback in the log only."""

    async def fail(_body: Any) -> Any:
        raise ZeroDivisionError("a secret detail")

    with monkeypatch.context() as patched:
        patched.setattr(server.database, "read", fail)
        answer = server.operator.get("/v1/endpoints")
    assert (answer.status, answer.code) == (500, "internal_error")
    assert b"secret detail" not in answer.body
    assert "secret detail" in capsys.readouterr().out


def test_every_code_has_a_status_and_a_title() -> None:
    """Also those of the services, wherever they are raised."""
    refusals = [each for each in vars(service_errors).values() if isinstance(each, type)]
    codes = {each.code for each in refusals if issubclass(each, ServiceError) and each is not ServiceError}
    assert codes <= STATUS.keys()
    assert STATUS.keys() == TITLES.keys()
