"""The cache: subscriptions, schema checks, and the effect of changes."""

import json
import socket
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs
from tests.caches import Limits, endpoint_cache

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.ids import ACCOUNT, ENDPOINT, prefixed
from uplift_server.core.limits import SCHEMA_PROBLEMS_MAX
from uplift_server.delivery.endpoint_cache import (
    EndpointCache,
    LiveEventType,
    compile_schema,
)
from uplift_server.delivery.shards import LocalShards
from uplift_server.delivery.targets import Target
from uplift_server.store.encryption import Cipher, Column, WrongSecretKey
from uplift_server.store.records import Account, ApiKey, Endpoint, EndpointState, EventType

CIPHER = Cipher(b"k" * 32)
SECRET = "whsec_" + "A" * 43 + "="


def account(seq: int = 1) -> Account:
    """Return an account."""
    return Account(seq, bytes([seq]) * 16, "Club", (), 1, 1)


def event_type(name: str = "a.b", **fields: Any) -> EventType:
    """Return an event type."""
    values = {"seq": 1, "schema": None, "archived_at": None} | fields
    return EventType(
        name=name, group="a", description="", example=None, api_version="1", documented=False, created_at=1,
        updated_at=1, **values,
    )  # fmt: skip


def endpoint(seq: int = 1, **fields: Any) -> Endpoint:
    """Return an endpoint."""
    values: dict[str, Any] = {
        "account_seq": 1,
        "url": "https://one.test/hook",
        "event_types": (),
        "secret": CIPHER.encrypt(SECRET, bytes([seq]) * 16, "secret"),
        "headers": None,
        "state": EndpointState.ENABLED,
        "disabled_reason": None,
        "consecutive_failures": 0,
        "failing_since": None,
        "last_success_at": None,
        "last_failure_at": None,
        "last_outcome": None,
    } | fields
    return Endpoint(
        seq=seq, id=bytes([seq]) * 16, description="", secret_created_at=1, created_at=1, updated_at=1, **values
    )


@pytest.fixture
def limits() -> Limits:
    """The limits of the endpoints in the cache."""
    return Limits()


@pytest.fixture
def cache(limits: Limits) -> EndpointCache:
    """A cache with two accounts."""
    cache = EndpointCache(CIPHER, "Uplift-Webhooks/test", LocalShards(), limits)
    cache.load([account(1), account(2)], [], [], [])
    return cache


def matching(cache: EndpointCache, name: str, account_seq: int = 1) -> list[int]:
    """Return the endpoints that match an event type."""
    return [live.seq for live in cache.subscribers(account_seq, name).endpoints]


# ---- matching


def test_an_event_matches_the_subscribed_endpoints_of_its_account(cache: EndpointCache) -> None:
    cache.put_endpoint(endpoint(1))
    cache.put_endpoint(endpoint(2, event_types=("a.b",)))
    cache.put_endpoint(endpoint(3, event_types=("a.*",)))
    cache.put_endpoint(endpoint(4, event_types=("c",)))
    cache.put_endpoint(endpoint(5, account_seq=2))

    assert matching(cache, "a.b") == [1, 2, 3]
    assert matching(cache, "a.b.c") == [1, 3]
    assert matching(cache, "c") == [1, 4]
    assert matching(cache, "a.b", 2) == [5]
    assert matching(cache, "a.b", 3) == []
    assert [live.seq for live in cache.endpoints_of(2)] == [5]


def test_paused_endpoints_match(cache: EndpointCache) -> None:
    cache.put_endpoint(endpoint(1, state=EndpointState.PAUSED))

    assert matching(cache, "a.b") == [1]
    assert not cache.endpoints[1].takes_deliveries


def test_matches_follow_changes_of_endpoints(cache: EndpointCache) -> None:
    assert matching(cache, "a.b") == []
    cache.put_endpoint(endpoint(1))
    assert matching(cache, "a.b") == [1]
    cache.put_endpoint(endpoint(1, event_types=("c",)))
    assert matching(cache, "a.b") == []
    cache.put_endpoint(endpoint(1, event_types=("a.*",)))
    assert matching(cache, "a.b") == [1]
    cache.drop_endpoint(1)
    assert matching(cache, "a.b") == []


# ---- adding and dropping


def test_loaded_objects_are_found() -> None:
    cache = endpoint_cache(CIPHER, "")
    key = ApiKey(1, b"k" * 16, 1, "k", b"d" * 32, "abcd", frozenset(), 1)
    cache.load([account()], [key], [event_type()], [endpoint()])

    assert cache.accounts[1] is cache.accounts_by_id[b"\x01" * 16]
    assert cache.keys == {b"d" * 32: key}
    assert cache.event_types["a.b"] is cache.event_types_by_seq[1]
    assert cache.endpoints[1] is cache.endpoints_by_id[b"\x01" * 16]


def test_dropped_objects_are_not_found() -> None:
    cache = endpoint_cache(CIPHER, "")
    key = ApiKey(1, b"k" * 16, 1, "k", b"d" * 32, "abcd", frozenset(), 1)
    cache.load([account()], [key], [event_type()], [endpoint()])
    for _ in range(2):  # There is nothing to drop the second time.
        cache.drop_endpoint(1)
        cache.drop_key(b"d" * 32)
        cache.drop_event_type("a.b")
        cache.drop_account(1)

    for held in (cache.accounts, cache.accounts_by_id, cache.keys, cache.event_types):
        assert not held
    assert not cache.endpoints
    assert not cache.endpoints_by_id
    assert not list(cache.endpoints_of(1))


def test_events_of_a_dropped_type_keep_its_name(cache: EndpointCache) -> None:
    cache.put_event_type(event_type())
    cache.drop_event_type("a.b")

    assert cache.event_types_by_seq[1].name_bytes == b"a.b"


def test_a_dropped_endpoint_is_marked_as_deleted(cache: EndpointCache) -> None:
    cache.put_endpoint(endpoint())
    live = cache.endpoints[1]
    assert live.takes_deliveries
    cache.drop_endpoint(1)

    assert live.deleted
    assert not live.takes_deliveries


# ---- a changed record


def test_a_change_updates_the_existing_object(cache: EndpointCache, limits: Limits) -> None:
    cache.put_endpoint(endpoint())
    live = cache.endpoints[1]
    signed = live.parts.signer.sign(b"id", b"1", b"{}")
    live.health = live.health.after(Outcome.TIMEOUT, 5, own_fault=False)
    limits.adjusted.clear()

    cache.put_endpoint(
        endpoint(
            url="http://10.0.0.1:8080/other?x=1",
            event_types=("c",),
            secret=CIPHER.encrypt("another-secret-of-theirs", b"\x01" * 16, "secret"),
            headers=CIPHER.encrypt(json.dumps({"X-Team": "first", "X-Key": "k"}), b"\x01" * 16, "headers"),
            state=EndpointState.PAUSED,
        )
    )

    assert cache.endpoints[1] is live
    assert limits.adjusted == [live]
    assert live.parts.target == Target("10.0.0.1", 8080, False, account=1)
    assert live.parts.head.start.startswith(b"POST /other?x=1 HTTP/1.1\r\nhost: 10.0.0.1:8080\r\n")
    assert live.parts.head.custom == b"X-Team: first\r\nX-Key: k\r\n\r\n"
    assert live.parts.signer.sign(b"id", b"1", b"{}") != signed
    assert not live.takes_deliveries
    # The engine has the latest health. A record that was read before the last attempt does not replace it.
    assert live.health.consecutive_failures == 1


def test_a_loaded_endpoint_has_the_stored_health(cache: EndpointCache) -> None:
    cache.put_endpoint(
        endpoint(consecutive_failures=3, failing_since=10, last_failure_at=20, last_outcome=Outcome.TIMEOUT)
    )
    live = cache.endpoints[1]

    assert (live.health.status, live.health.failing_since, live.health.last_outcome) == ("failing", 10, Outcome.TIMEOUT)
    assert live.health_saved_failing
    assert (live.id_text, live.account_text) == (prefixed(ENDPOINT, b"\x01" * 16), prefixed(ACCOUNT, b"\x01" * 16))


@pytest.mark.parametrize("field", ["secret", "headers"])
def test_a_wrong_secret_key_changes_nothing(cache: EndpointCache, field: Column) -> None:
    wrong = {field: Cipher(b"x" * 32).encrypt("{}", b"\x01" * 16, field)}
    with pytest.raises(WrongSecretKey, match="UPLIFT_SECRET_KEY"):
        cache.put_endpoint(endpoint(**wrong))
    assert not cache.endpoints
    assert matching(cache, "a.b") == []

    cache.put_endpoint(endpoint())
    live = cache.endpoints[1]
    before = (live.record, live.parts.head, live.parts.target)
    with pytest.raises(WrongSecretKey):
        cache.put_endpoint(endpoint(url="https://two.test/", **wrong))
    assert (live.record, live.parts.head, live.parts.target) == before


def test_a_secret_encrypted_for_another_endpoint_is_rejected(cache: EndpointCache) -> None:
    with pytest.raises(WrongSecretKey):
        cache.put_endpoint(endpoint(1, secret=endpoint(2).secret))


def test_an_invalid_stored_url_affects_only_its_endpoint(cache: EndpointCache) -> None:
    with capture_logs() as logs:
        cache.put_endpoint(endpoint(1, url="no url"))
    assert cache.endpoints[1].parts.target.host.endswith(".invalid")
    assert [each["event"] for each in logs] == ["stored endpoint URL invalid"]


# ---- event types


def test_an_archived_type_is_marked_as_archived() -> None:
    live = LiveEventType(event_type())
    assert not live.archived
    assert LiveEventType(replace(live.record, archived_at=5)).archived


def typed(schema: object) -> LiveEventType:
    """Return a type with a schema."""
    return LiveEventType(event_type(schema=json.dumps(schema)))


def test_without_a_schema_any_data_is_valid() -> None:
    assert LiveEventType(event_type()).problems(b'{"x":1}') == []


def test_valid_data_has_no_problems() -> None:
    assert typed({"required": ["a"]}).problems(b'{"a":1}') == []


def test_problems_name_the_path_of_invalid_data() -> None:
    schema = {
        "properties": {
            "height": {"type": "number"},
            "frames": {"items": {"properties": {"x": {"type": "number"}}, "required": ["y"]}},
        }
    }
    problems = typed(schema).problems(b'{"height":"tall","frames":[{"x":1,"y":1},{"x":"left"}]}')

    assert sorted(problem.field for problem in problems) == ["data.frames.1", "data.frames.1.x", "data.height"]
    assert {problem.code for problem in problems} == {"schema_mismatch"}
    assert all("the schema of a.b" in problem.message for problem in problems)


def test_the_number_of_problems_is_limited() -> None:
    event_type = typed({"items": {"type": "number"}})
    problems = event_type.problems(json.dumps(["x" * 500] * 30).encode())

    assert len(problems) == SCHEMA_PROBLEMS_MAX
    # For large data, only one problem is reported. Finding all of them would block the event loop.
    assert len(event_type.problems(json.dumps(["x" * 500] * 100).encode())) == 1
    assert max(len(problem.message) for problem in problems) < 400


@pytest.mark.parametrize("text", ['{"type":"nothing"}', "[]", "{", '{"$ref":"#/$defs/missing"}'])
def test_an_invalid_schema_is_rejected(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        compile_schema(text)


@pytest.mark.parametrize("scheme", ["http", "https", "file"])
def test_external_references_are_never_fetched(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.3)
        where = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/schema.json"
        if scheme == "file":
            where = "file:///etc/hostname"
        with pytest.raises(ValueError, match=r"\S"):
            compile_schema(json.dumps({"$ref": where}))
        with pytest.raises(TimeoutError):
            server.accept()


def test_references_within_a_schema_work() -> None:
    live = typed({"$defs": {"n": {"type": "number"}}, "properties": {"a": {"$ref": "#/$defs/n"}}})
    assert live.problems(b'{"a":1}') == []
    assert [problem.field for problem in live.problems(b'{"a":"x"}')] == ["data.a"]


def test_request_parts_are_created_on_first_use() -> None:
    headers = CIPHER.encrypt('{"X-A": "b"}', bytes([7]) * 16, "headers")
    # Creating the parts of the second endpoint writes a log message, because its URL is invalid.
    records = [endpoint(7, headers=headers), endpoint(8, url="not a URL")]
    loaded, put = endpoint_cache(CIPHER), endpoint_cache(CIPHER)
    with capture_logs() as logs:
        loaded.load([account()], [], [], records)
        assert logs == []
        assert loaded.endpoints[8].parts is loaded.endpoints[8].parts
        assert [line["event"] for line in logs] == ["stored endpoint URL invalid"]
    put.put_account(account())
    put.put_endpoint(records[0])
    one, other = loaded.endpoints[7], put.endpoints[7]
    assert one.parts.target == other.parts.target
    assert (one.parts.url, one.parts.head.custom) == (other.parts.url, other.parts.head.custom)
    assert one.parts.signer.sign(b"id", b"1", b"{}") == other.parts.signer.sign(b"id", b"1", b"{}")
    assert one.parts.signer_until == other.parts.signer_until
    loaded.put_endpoint(structs.replace(records[0], url="https://two.test/hook"))
    assert one.parts.target.host == "two.test"


def test_a_load_with_a_wrong_key_fails() -> None:
    cache = endpoint_cache(Cipher(b"x" * 32))
    with pytest.raises(WrongSecretKey):
        cache.load([account()], [], [], [endpoint()])


def test_a_stored_url_that_is_no_longer_allowed_is_loaded(cache: EndpointCache) -> None:
    cache.load([account(1)], [], [], [endpoint(1, url="https://[2002:5db8:d822::1]/hook")])

    # The server blocks attempts to this endpoint when it connects.
    assert cache.endpoints[1].parts.target == Target("2002:5db8:d822::1", 443, True, 1)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_uid_moves_to_another_object_in_any_order_of_changes(order: tuple[int, int]) -> None:
    """Cache sync reads the changes of other processes in any order."""
    cache = endpoint_cache(CIPHER)
    for seq in (1, 2):
        cache.put_account(account(seq))
    cache.put_account(replace(account(1), uid="club"))
    cache.put_endpoint(endpoint(1, uid="main"))
    cache.put_endpoint(endpoint(2))
    assert cache.find_account("club") is cache.accounts[1]
    assert cache.find_endpoint(1, "main") is cache.endpoints[1]
    for seq in order:
        cache.put_account(replace(account(seq), uid="club" if seq == 2 else None))
        cache.put_endpoint(endpoint(seq, uid="main" if seq == 2 else None))
    assert cache.find_account("club") is cache.accounts[2]
    assert cache.find_endpoint(1, "main") is cache.endpoints[2]
    assert cache.find_endpoint(2, "main") is None
    cache.drop_endpoint(1)
    cache.drop_account(1)
    assert cache.find_account("club") is cache.accounts[2]
    cache.drop_endpoint(2)
    cache.drop_account(2)
    assert cache.find_account("club") is None
    assert cache.find_endpoint(1, "main") is None
