"""The definitions of the delivery settings of an endpoint."""

import pytest

from uplift_server.core.endpoint_settings import DEFAULTS, ENDPOINT_SETTINGS, EndpointSetting, EndpointSettings

SETTINGS = {each.name: each for each in ENDPOINT_SETTINGS}


def test_settings_are_in_the_order_of_their_definitions() -> None:
    assert EndpointSettings(max_in_flight=4).by_name() == {"rate_limit_per_second": None, "max_in_flight": 4}
    assert list(DEFAULTS.by_name().items()) == [(each.name, None) for each in ENDPOINT_SETTINGS]


@pytest.mark.parametrize(("value", "allowed"), [(0, False), (1, True), (256, True), (257, False)])
def test_a_setting_allows_the_values_within_its_bounds(value: int, *, allowed: bool) -> None:
    assert SETTINGS["max_in_flight"].allows(value) is allowed


def test_bounds_have_thousands_separators() -> None:
    assert SETTINGS["rate_limit_per_second"].bounds == "1 to 10,000"


@pytest.mark.parametrize("setting", ENDPOINT_SETTINGS, ids=lambda each: each.name)
def test_a_definition_has_a_sentence_of_help_and_a_default(setting: EndpointSetting) -> None:
    assert setting.help.endswith(".")
    assert setting.label
    assert setting.unit
    assert setting.default
