"""Texts of state cards, the endpoint form and the audit log, without a server."""

from dataclasses import replace

import pytest
from msgspec import structs

from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.limits import HELD_COUNTED_MAX
from uplift_server.core.timestamps import parse_timestamp
from uplift_server.dashboard.audit_words import details_words
from uplift_server.dashboard.endpoint_forms import draft_of, groups
from uplift_server.dashboard.endpoint_states import Row, StateCard, problem_card, state_card, summary
from uplift_server.dashboard.forms import Form
from uplift_server.service.endpoints import ShownEndpoint
from uplift_server.store.records import DisabledReason, Endpoint, EndpointState, EventType, HeldAction

NOW = 1_000_000_000
DAY = 86_400_000
ENDPOINT = Endpoint(
    seq=1,
    id=b"e" * 16,
    account_seq=1,
    url="https://example.com/",
    description="",
    event_types=(),
    secret=b"",
    secret_created_at=1,
    headers=None,
    state=EndpointState.ENABLED,
    disabled_reason=None,
    consecutive_failures=0,
    failing_since=None,
    last_success_at=None,
    last_failure_at=None,
    last_outcome=None,
    created_at=NOW - DAY,
    updated_at=NOW - DAY,
)
FAILING = structs.replace(
    ENDPOINT,
    consecutive_failures=7,
    failing_since=NOW - DAY,
    last_failure_at=NOW,
    last_outcome=Outcome.SERVER_ERROR,
)


def card(shown: ShownEndpoint, *, contacts: int = 2, sends_mail: bool = True) -> StateCard:
    """Return the state card."""
    return state_card(shown, now=NOW, contacts=contacts, sends_mail=sends_mail)


def rows(shown: ShownEndpoint, *, contacts: int = 2, sends_mail: bool = True) -> dict[str, tuple[str, int | None]]:
    """Return the rows of the state card by label."""
    return {row.label: (row.text, row.at) for row in card(shown, contacts=contacts, sends_mail=sends_mail).rows}


def failing(
    endpoint: Endpoint = FAILING, *, warn_at: int | None = NOW + DAY, disable_at: int | None = NOW + 3 * DAY
) -> ShownEndpoint:
    """Return a failing endpoint."""
    return ShownEndpoint(endpoint, {}, warn_at=warn_at, disable_at=disable_at)


def test_the_warning_row_shows_recipients_and_time() -> None:
    assert rows(failing())["Warning"] == ("email to 2 contacts", NOW + DAY)
    assert rows(failing(), contacts=1)["Warning"] == ("email to 1 contact", NOW + DAY)
    assert "no contacts" in rows(failing(), contacts=0)["Warning"][0]
    assert "email is not configured" in rows(failing(), sends_mail=False)["Warning"][0]
    assert rows(failing())["Will be disabled"][1] == NOW + 3 * DAY


def test_the_title_without_attempts_depends_on_the_last_enable() -> None:
    assert card(ShownEndpoint(ENDPOINT, {})).title == "No attempts yet"
    enabled = ShownEndpoint(structs.replace(ENDPOINT, state_since=NOW), {})
    assert card(enabled).title == "No attempts since the endpoint was enabled"


def test_an_open_circuit_shows_the_next_probe_and_a_fix() -> None:
    text, at = rows(replace(failing(), next_probe_at=NOW + 5))["Next probe"]
    assert at == NOW + 5
    assert "resend one" in text


def test_a_failing_endpoint_shows_cause_error_and_fix() -> None:
    error = "the certificate of example.com, or one in its chain, has expired"
    found = structs.replace(FAILING, last_outcome=Outcome.TLS_ERROR, last_error=error)
    shown = rows(failing(found))
    assert "certificate has expired" in shown["Cause"][0]
    assert shown["Last error"] == (error, None)
    assert "Renew" in shown["How to fix"][0]
    assert summary(failing(found)).reason == "TLS certificate expired"
    compact = problem_card(replace(failing(found), next_probe_at=NOW - 5), now=NOW)
    assert (compact.sentence, compact.how_to_fix) == (shown["Cause"][0], shown["How to fix"][0])
    assert Row("Next attempt", at=NOW) in compact.rows
    answered = rows(failing(structs.replace(FAILING, last_status_code=500)))
    assert "responded with 500" in answered["Cause"][0]
    assert "Last error" not in answered
    rejected = structs.replace(
        FAILING, last_outcome=Outcome.CLIENT_ERROR, last_status_code=401, last_error="No. [missing_header]"
    )
    explained = rows(failing(rejected))
    assert explained["Response"] == ("No. [missing_header]", None)
    assert "signature header" in explained["Cause"][0]
    assert "Last error" not in explained


def test_a_list_shows_held_deliveries_only_if_there_are_any() -> None:
    assert summary(failing()).held is None
    assert summary(replace(failing(), held_deliveries=2)).held == "2 deliveries held"


def test_a_few_failures_schedule_no_warning() -> None:
    few = failing(structs.replace(FAILING, consecutive_failures=2), warn_at=NOW - 1)
    assert rows(few)["Warning"] == ("after 5 failed attempts, email to 2 contacts", None)
    assert card(few).sentence == "The last 2 attempts failed."
    assert card(failing(structs.replace(FAILING, consecutive_failures=1))).sentence == "The last attempt failed."


def test_a_warned_endpoint_shows_the_time_of_the_warning() -> None:
    warned = failing(structs.replace(FAILING, warned_at=NOW - 5), warn_at=None)
    assert card(warned).kind == "warned"
    assert rows(warned)["Contacts warned"] == ("", NOW - 5)
    assert "Warning" not in rows(warned)


def test_a_mass_failure_schedules_no_warning_or_disable() -> None:
    found = rows(failing(warn_at=None, disable_at=None))
    assert "mass failure" in found["Retries"][0]
    assert not {"Warning", "Will be disabled"} & found.keys()


def test_the_next_probe_is_never_in_the_past() -> None:
    assert rows(replace(failing(), next_probe_at=NOW - 10))["Next probe"][1] == NOW
    assert rows(replace(failing(), next_probe_at=NOW + 10))["Next probe"][1] == NOW + 10


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        (DisabledReason.FAILING, "failing for too long"),
        (DisabledReason.GONE, "410 Gone"),
        (DisabledReason.OPERATOR, "An operator"),
    ],
)
def test_a_disabled_endpoint_shows_the_reason(reason: DisabledReason, words: str) -> None:
    shown = ShownEndpoint(
        structs.replace(FAILING, state=EndpointState.DISABLED, disabled_reason=reason, state_since=NOW - 1), {}
    )
    assert words in card(shown).sentence
    assert rows(shown)["Disabled since"] == ("", NOW - 1)
    assert rows(shown)["Failing since"] == ("", NOW - DAY)
    assert ("Ask the operator" in rows(shown).get("Disabled by", ("", None))[0]) == (reason is DisabledReason.OPERATOR)
    assert summary(shown).kind == "disabled"
    assert summary(shown).reason


@pytest.mark.parametrize(
    ("action", "words"),
    [
        (HeldAction.KEEP, "kept until"),
        (HeldAction.DROP, "being dropped"),
        (HeldAction.SEND, "being sent"),
        (None, "sent"),
    ],
)
def test_an_enabled_endpoint_shows_the_action_for_held_deliveries(action: HeldAction | None, words: str) -> None:
    shown = ShownEndpoint(structs.replace(ENDPOINT, last_success_at=NOW, held_action=action), {}, held_deliveries=1)
    text = rows(shown)["Held"][0]
    assert text.startswith("1 delivery, ")
    assert words in text


def test_held_deliveries_are_counted_up_to_a_limit() -> None:
    shown = ShownEndpoint(structs.replace(ENDPOINT, state=EndpointState.PAUSED), {}, held_deliveries=HELD_COUNTED_MAX)
    assert rows(shown)["Held"] == ("1,000 or more deliveries", None)


def event_type(name: str, *, archived: bool = False) -> EventType:
    """Return an event type."""
    return EventType(1, name, "g", "First. Second.", None, None, "v", False, 1, 1, 5 if archived else None)


def test_the_form_groups_event_types_and_keeps_other_patterns() -> None:
    types = [event_type("b.two"), event_type("b.one"), event_type("a"), event_type("b.old", archived=True)]
    found = groups(types, ["b.one", "b.*", "gone.*", "b.one.deep.*"])
    assert [group.title for group in found] == ["a", "b", "Other patterns"]
    assert found[0].whole is None
    assert [(each.pattern, each.chosen) for each in found[1].types] == [("b.one", True), ("b.two", False)]
    assert found[1].whole is not None
    assert found[1].whole.chosen
    assert [each.pattern for each in found[2].types] == ["gone.*", "b.one.deep.*"]
    assert all(each.chosen for each in found[2].types)
    assert [each.pattern for each in groups(types, ["b.old"])[1].types] == ["b.old", "b.one", "b.two"]
    assert found[1].types[0].text == "First."


def test_the_form_lists_operational_events_separately_with_a_note() -> None:
    names = ["delivery.failed", "delivery.planned", "a.one", "endpoint.warned"]
    found = groups([event_type(each) for each in names], ["endpoint.warned", "endpoint.*"])
    assert [group.title for group in found] == ["a", "delivery", "Operational events", "Other patterns"]
    assert [(each.pattern, each.chosen) for each in found[2].types] == [
        ("delivery.failed", False),
        ("endpoint.warned", True),
    ]
    assert found[2].whole is None
    assert found[2].note
    assert not found[0].note
    assert [each.pattern for each in found[1].types] == ["delivery.planned"]
    assert [each.pattern for each in found[3].types] == ["endpoint.*"]


def test_types_of_a_selected_group_are_not_stored_twice() -> None:
    form = Form([("event_types", each) for each in ("a.one", "a.*", "ab.one", "a.one.*", "c")])
    draft, problems = draft_of(form)
    assert (draft.event_types, problems) == (("a.*", "ab.one", "a.one.*", "c"), [])


def test_audit_log_details_are_shown_as_text() -> None:
    changed = {"changed": ["url", "headers"], "from": {"url": "https://a/"}, "to": {"url": "https://b/"}}
    assert details_words(changed) == [("url", "https://a/ → https://b/"), ("headers", "updated")]
    assert details_words({"changed": ["headers"]}) == [("changed", "headers")]
    assert details_words(
        {"event_types": [], "chosen": False, "seconds": 0, "by": None, "at": {"held_by": ["a", "b"]}}
    ) == [
        ("event types", "all"),
        ("chosen", "no"),
        ("seconds", "0"),
        ("by", "none"),
        ("at", "held by: a, b"),
    ]
    [(_, text)] = details_words({"name": "x" * 1000})
    assert len(str(text)) == 300
    began = {"since": "2026-01-31T03:12:00.000Z", "causes": {"Timeout": 3, "Host name does not resolve": 199}}
    assert details_words(began) == [
        ("since", parse_timestamp("2026-01-31T03:12:00.000Z")),
        ("causes", "199 \N{MULTIPLICATION SIGN} Host name does not resolve, 3 \N{MULTIPLICATION SIGN} Timeout"),
    ]
    assert details_words({"at": "2026-99-31T03:12:00.000Z"}) == [("at", "2026-99-31T03:12:00.000Z")]
