"""The definitions of the delivery settings of an endpoint."""

from typing import Any

import pytest

from uplift_server.core.deliveries.ordering import Ordering
from uplift_server.core.endpoint_settings import (
    DEFAULTS,
    ENDPOINT_SETTINGS,
    AttemptTimeouts,
    EndpointSetting,
    EndpointSettings,
    from_columns,
    setting_problems,
)
from uplift_server.core.limits import ENDPOINT_TIMEOUT_MS_MAX
from uplift_server.core.named_codes import NamedCode
from uplift_server.core.setting_values import Choice

DAY_MS = 86_400_000
SETTINGS = EndpointSettings(
    max_in_flight=4, retry_schedule_ms=(5000, 7 * DAY_MS), attempt_timeout_ms=10_000, ordering=Ordering.KEY
)
JSON = {
    "rate_limit_per_second": None,
    "max_in_flight": 4,
    "retry_schedule": ["5s", "7d"],
    "attempt_timeout": "10s",
    "ordering": "key",
}


class Pace(NamedCode):
    """The values of an example setting."""

    CALM = 0
    FAST = 1


def test_settings_are_in_the_order_of_their_definitions() -> None:
    assert list(SETTINGS.as_json().items()) == list(JSON.items())
    assert list(DEFAULTS.as_json().items()) == [(each.name, each.json(each.initial)) for each in ENDPOINT_SETTINGS]


def test_columns_are_named_with_units_and_read_back() -> None:
    columns = SETTINGS.columns()
    assert columns == {
        "rate_limit_per_second": None,
        "max_in_flight": 4,
        "retry_schedule_ms": "[5000, 604800000]",
        "attempt_timeout_ms": 10_000,
        "ordering": 1,
    }
    assert from_columns(columns.values()) == SETTINGS
    assert from_columns(DEFAULTS.columns().values()) == DEFAULTS


def test_a_request_updates_the_settings_it_contains() -> None:
    assert DEFAULTS.updated(JSON) == SETTINGS
    changed = SETTINGS.updated({"retry_schedule": [], "attempt_timeout": None, "ordering": None})
    assert changed == EndpointSettings(max_in_flight=4, retry_schedule_ms=())


@pytest.mark.parametrize(
    ("sent", "wrong"),
    [
        (JSON, []),
        ({"retry_schedule": ["1s"] * 20}, []),
        ({"retry_schedule": ["7d", "7d"]}, []),
        ({"retry_schedule": ["1s"] * 21}, ["retry_schedule"]),
        ({"retry_schedule": ["7d", "7d", "1s"]}, ["retry_schedule"]),
        ({"retry_schedule": ["999ms", "7d1ms"]}, ["retry_schedule", "retry_schedule"]),
        ({"attempt_timeout": "30s", "max_in_flight": 257}, ["max_in_flight"]),
        ({"attempt_timeout": "30s1ms"}, ["attempt_timeout"]),
    ],
)
def test_problems_name_the_field(sent: dict[str, Any], wrong: list[str]) -> None:
    assert [each.field for each in setting_problems(sent, AttemptTimeouts(15_000, ENDPOINT_TIMEOUT_MS_MAX))] == wrong


def test_the_operator_can_lower_the_limit_of_the_timeout() -> None:
    [problem] = setting_problems({"attempt_timeout": "21s"}, AttemptTimeouts(15_000, 20_000))
    assert (problem.field, problem.code) == ("attempt_timeout", "out_of_range")
    assert "1s to 20s" in problem.message


def test_an_endpoint_has_its_own_timeout_within_the_limit() -> None:
    timeouts = AttemptTimeouts(15_000, 20_000)
    own = (None, 1000, 20_000, 30_000)
    assert [timeouts.of(EndpointSettings(attempt_timeout_ms=each)) for each in own] == [15_000, 1000, 20_000, 20_000]


def test_values_have_a_text_for_forms_and_words_for_pages() -> None:
    by_name = {each.name: each for each in ENDPOINT_SETTINGS}
    schedule, rate = by_name["retry_schedule"], by_name["rate_limit_per_second"]
    assert (schedule.text(None), schedule.text(()), schedule.text((5000, 1000))) == ("", "none", "5s, 1s")
    assert (rate.words(None), rate.words(1200)) == ("no limit", "1,200 attempts per second")


def test_a_choice_has_an_initial_value() -> None:
    setting = EndpointSetting("pace", "Pace", "How fast.", Choice(Pace), "calm", initial=Pace.CALM)
    assert (setting.read(None), setting.loaded(None)) == (Pace.CALM, Pace.CALM)
    assert (setting.read("fast"), setting.loaded(1), setting.stored(Pace.FAST)) == (Pace.FAST, Pace.FAST, 1)
    assert setting.json(Pace.CALM) == "calm"


@pytest.mark.parametrize("setting", ENDPOINT_SETTINGS, ids=lambda each: each.name)
def test_a_definition_has_a_sentence_of_help_and_a_default(setting: EndpointSetting) -> None:
    assert setting.help.endswith(".")
    assert setting.label
    assert setting.default
