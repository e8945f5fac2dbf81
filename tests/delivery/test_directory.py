"""What is held in memory: who wants what, which data fits, and how changes take effect."""

import json
import socket
import time
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.ids import ACCOUNT, ENDPOINT, prefixed
from uplift_server.core.limits import SCHEMA_PROBLEMS_MAX
from uplift_server.delivery.endpoint_cache import (
    Directory,
    LiveEndpoint,
    LiveEventType,
    compile_schema,
)
from uplift_server.delivery.sending.http.request import Target
from uplift_server.store.records import Account, ApiKey, Endpoint, EndpointState, EventType
from uplift_server.store.sealing import Column, Sealer, WrongSecretKey

SEALER = Sealer(b"k" * 32)
SECRET = "whsec_" + "A" * 43 + "="


def account(seq: int = 1) -> Account:
    """An account."""
    return Account(seq, bytes([seq]) * 16, "Club", (), 1, 1)


def event_type(name: str = "a.b", **fields: Any) -> EventType:
    """An event type."""
    values = {"seq": 1, "schema": None, "archived_at": None} | fields
    return EventType(
        name=name, group="a", description="", example=None, api_version="1", documented=False, created_at=1,
        updated_at=1, **values,
    )  # fmt: skip


def endpoint(seq: int = 1, **fields: Any) -> Endpoint:
    """An endpoint."""
    values: dict[str, Any] = {
        "account_seq": 1,
        "url": "https://one.test/hook",
        "event_types": (),
        "secret": SEALER.seal(SECRET, bytes([seq]) * 16, "secret"),
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
def directory() -> Directory:
    """A directory with two accounts."""
    directory = Directory(SEALER, "Uplift-Webhooks/test")
    directory.load([account(1), account(2)], [], [], [])
    return directory


def matching(directory: Directory, name: str, account_seq: int = 1) -> list[int]:
    """The endpoints that get an event of a type."""
    return [live.seq for live in directory.matches(account_seq, name)]


# ---- matching


def test_an_event_goes_to_the_endpoints_of_its_account_that_want_it(directory: Directory) -> None:
    directory.put_endpoint(endpoint(1))
    directory.put_endpoint(endpoint(2, event_types=("a.b",)))
    directory.put_endpoint(endpoint(3, event_types=("a.*",)))
    directory.put_endpoint(endpoint(4, event_types=("c",)))
    directory.put_endpoint(endpoint(5, account_seq=2))

    assert matching(directory, "a.b") == [1, 2, 3]
    assert matching(directory, "a.b.c") == [1, 3]
    assert matching(directory, "c") == [1, 4]
    assert matching(directory, "a.b", 2) == [5]
    assert matching(directory, "a.b", 3) == []
    assert [live.seq for live in directory.endpoints_of(2)] == [5]


def test_paused_endpoints_match_too_for_what_they_are_owed_is_held(directory: Directory) -> None:
    directory.put_endpoint(endpoint(1, state=EndpointState.PAUSED))

    assert matching(directory, "a.b") == [1]
    assert not directory.endpoints[1].takes_deliveries


def test_matches_follow_every_change(directory: Directory) -> None:
    assert matching(directory, "a.b") == []
    directory.put_endpoint(endpoint(1))
    assert matching(directory, "a.b") == [1]
    directory.put_endpoint(endpoint(1, event_types=("c",)))
    assert matching(directory, "a.b") == []
    directory.put_endpoint(endpoint(1, event_types=("a.*",)))
    assert matching(directory, "a.b") == [1]
    directory.drop_endpoint(1)
    assert matching(directory, "a.b") == []


# ---- putting and dropping


def test_everything_loaded_is_found_by_its_names() -> None:
    directory = Directory(SEALER, "")
    key = ApiKey(1, b"k" * 16, 1, "k", b"d" * 32, "abcd", frozenset(), 1)
    directory.load([account()], [key], [event_type()], [endpoint()])

    assert directory.accounts[1] is directory.accounts_by_id[b"\x01" * 16]
    assert directory.keys == {b"d" * 32: key}
    assert directory.event_types["a.b"] is directory.event_types_by_seq[1]
    assert directory.endpoints[1] is directory.endpoints_by_id[b"\x01" * 16]


def test_what_is_dropped_is_found_no_more() -> None:
    directory = Directory(SEALER, "")
    key = ApiKey(1, b"k" * 16, 1, "k", b"d" * 32, "abcd", frozenset(), 1)
    directory.load([account()], [key], [event_type()], [endpoint()])
    for _ in range(2):  # the second time there is nothing to drop
        directory.drop_endpoint(1)
        directory.drop_key(b"d" * 32)
        directory.drop_event_type("a.b")
        directory.drop_account(1)

    for held in (directory.accounts, directory.accounts_by_id, directory.keys, directory.event_types):
        assert not held
    assert not directory.endpoints
    assert not directory.endpoints_by_id
    assert not list(directory.endpoints_of(1))


def test_events_of_a_dropped_type_keep_its_name(directory: Directory) -> None:
    directory.put_event_type(event_type())
    directory.drop_event_type("a.b")

    assert directory.event_types_by_seq[1].name_bytes == b"a.b"


def test_whoever_holds_a_dropped_endpoint_sees_that_it_is_gone(directory: Directory) -> None:
    directory.put_endpoint(endpoint())
    live = directory.endpoints[1]
    assert live.takes_deliveries
    directory.drop_endpoint(1)

    assert live.deleted
    assert not live.takes_deliveries


# ---- a changed record


def test_a_change_takes_effect_on_the_endpoint_that_is_there(directory: Directory) -> None:
    directory.put_endpoint(endpoint())
    live = directory.endpoints[1]
    signed = live.parts.signer.sign(b"id", b"1", b"{}")
    live.health = live.health.after(Outcome.TIMEOUT, 5, ours=False)
    told: list[LiveEndpoint] = []
    directory.on_endpoint_changed = told.append

    directory.put_endpoint(
        endpoint(
            url="http://10.0.0.1:8080/other?x=1",
            event_types=("c",),
            secret=SEALER.seal("another-secret-of-theirs", b"\x01" * 16, "secret"),
            headers=SEALER.seal(json.dumps({"X-Team": "first", "X-Key": "k"}), b"\x01" * 16, "headers"),
            state=EndpointState.PAUSED,
        )
    )

    assert directory.endpoints[1] is live
    assert told == [live]
    assert live.parts.target == Target("10.0.0.1", 8080, False, account=1)
    assert live.parts.head.start.startswith(b"POST /other?x=1 HTTP/1.1\r\nhost: 10.0.0.1:8080\r\n")
    assert live.parts.head.custom == b"X-Team: first\r\nX-Key: k\r\n\r\n"
    assert live.parts.signer.sign(b"id", b"1", b"{}") != signed
    assert not live.takes_deliveries
    # Its health is the engine's: a record read before the last attempt does not set it back.
    assert live.health.consecutive_failures == 1


def test_a_new_endpoint_is_as_healthy_as_it_was_stored(directory: Directory) -> None:
    directory.put_endpoint(
        endpoint(consecutive_failures=3, failing_since=10, last_failure_at=20, last_outcome=Outcome.TIMEOUT)
    )
    live = directory.endpoints[1]

    assert (live.health.status, live.health.failing_since, live.health.last_outcome) == ("failing", 10, Outcome.TIMEOUT)
    assert live.health_saved_failing
    assert (live.id_text, live.account_text) == (prefixed(ENDPOINT, b"\x01" * 16), prefixed(ACCOUNT, b"\x01" * 16))


@pytest.mark.parametrize("field", ["secret", "headers"])
def test_another_secret_key_is_reported_and_nothing_is_half_changed(directory: Directory, field: Column) -> None:
    wrong = {field: Sealer(b"x" * 32).seal("{}", b"\x01" * 16, field)}
    with pytest.raises(WrongSecretKey, match="UPLIFT_SECRET_KEY"):
        directory.put_endpoint(endpoint(**wrong))
    assert not directory.endpoints
    assert matching(directory, "a.b") == []

    directory.put_endpoint(endpoint())
    live = directory.endpoints[1]
    before = (live.record, live.parts.head, live.parts.target)
    with pytest.raises(WrongSecretKey):
        directory.put_endpoint(endpoint(url="https://two.test/", **wrong))
    assert (live.record, live.parts.head, live.parts.target) == before


def test_a_secret_sealed_for_another_endpoint_does_not_open(directory: Directory) -> None:
    with pytest.raises(WrongSecretKey):
        directory.put_endpoint(endpoint(1, secret=endpoint(2).secret))


def test_a_stored_url_that_cannot_be_read_concerns_its_endpoint_alone(directory: Directory) -> None:
    with capture_logs() as logs:
        directory.put_endpoint(endpoint(1, url="no url"))
    assert directory.endpoints[1].parts.target.host.endswith(".invalid")
    assert [each["event"] for each in logs] == ["stored endpoint url is invalid"]


# ---- event types


def test_an_archived_type_is_known_as_such() -> None:
    live = LiveEventType(event_type())
    assert not live.archived
    assert LiveEventType(replace(live.record, archived_at=5)).archived


def typed(schema: object) -> LiveEventType:
    """A type with a schema for its data."""
    return LiveEventType(event_type(schema=json.dumps(schema)))


def test_without_a_schema_any_data_fits() -> None:
    assert LiveEventType(event_type()).problems(b'{"x":1}') == []


def test_data_that_fits_has_no_problems() -> None:
    assert typed({"required": ["a"]}).problems(b'{"a":1}') == []


def test_every_place_that_does_not_fit_is_named_by_its_path() -> None:
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


def test_no_more_problems_are_told_than_anybody_reads() -> None:
    event_type = typed({"items": {"type": "number"}})
    problems = event_type.problems(json.dumps(["x" * 500] * 30).encode())

    assert len(problems) == SCHEMA_PROBLEMS_MAX
    # Looking for all of them in large data would hold up everybody.
    assert len(event_type.problems(json.dumps(["x" * 500] * 100).encode())) == 1
    assert max(len(problem.message) for problem in problems) < 400


@pytest.mark.parametrize("text", ['{"type":"nothing"}', "[]", "{", '{"$ref":"#/$defs/missing"}'])
def test_what_is_no_schema_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        compile_schema(text)


@pytest.mark.parametrize("scheme", ["http", "https", "file"])
def test_a_reference_to_elsewhere_is_never_fetched(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_loaded_endpoint_is_made_ready_when_it_is_first_used() -> None:
    records = [
        endpoint(seq, headers=SEALER.seal('{"X-A": "b"}', bytes([seq]) * 16, "headers")) for seq in range(1, 200)
    ]
    loaded, put = Directory(SEALER, "test"), Directory(SEALER, "test")
    put.put_account(account())
    began = time.process_time()
    loaded.load([account()], [], [], records)
    loading = time.process_time() - began
    began = time.process_time()
    for record in records:
        put.put_endpoint(record)
    assert loading * 1.2 < time.process_time() - began, "most of the work is left until it is needed"
    one, other = loaded.endpoints[7], put.endpoints[7]
    assert one.parts.target == other.parts.target
    assert (one.parts.url, one.parts.head.custom) == (other.parts.url, other.parts.head.custom)
    assert one.parts.signer.sign(b"id", b"1", b"{}") == other.parts.signer.sign(b"id", b"1", b"{}")
    assert one.parts.signer_until == other.parts.signer_until
    loaded.put_endpoint(replace(records[6], url="https://two.test/hook"))
    assert one.parts.target.host == "two.test"


def test_a_load_with_another_key_fails_at_once() -> None:
    directory = Directory(Sealer(b"x" * 32), "test")
    with pytest.raises(WrongSecretKey):
        directory.load([account()], [], [], [endpoint()])


def test_a_stored_url_that_is_no_longer_allowed_does_not_stop_the_server(directory: Directory) -> None:
    directory.load([account(1)], [], [], [endpoint(1, url="https://[2002:5db8:d822::1]/hook")])

    # Its attempts are blocked when they connect.
    assert directory.endpoints[1].parts.target == Target("2002:5db8:d822::1", 443, True, 1)
