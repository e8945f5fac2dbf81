"""The client has a method for every API operation, with all its parameters."""

import asyncio
import inspect
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

from uplift_server.api.app import document
from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS
from uplift_webhooks.api import AsyncClient, Client
from uplift_webhooks.api.calls import Call, Noun, every, verb
from uplift_webhooks.api.everything import Everything
from uplift_webhooks.cli.kit.endpoint_settings import SETTINGS

BODIES: dict[str, Any] = {"headers": {}, "metadata": {}, "filter": {}, "data": {}, "events": []}
"""Values of arguments that are not strings."""


@dataclass(frozen=True)
class Method:
    """One method of the client: its call with all arguments, and its parameters."""

    name: str
    call: Call[Any]
    parameters: frozenset[str]
    takes_any_field: bool


def _methods() -> Iterator[Method]:
    client = Client("https://webhooks.example")
    nouns = {name: noun for name, noun in vars(client).items() if isinstance(noun, Noun)}
    for name, noun in {"client": client, **nouns}.items():
        kind = Everything if noun is client else type(noun)
        for attribute in vars(kind).values():
            if isinstance(attribute, verb):
                parameters = [*inspect.signature(attribute.describe).parameters.values()][1:]
                named = [each for each in parameters if each.kind is not each.VAR_KEYWORD]
                values = {each.name: BODIES.get(each.name, f"{{{each.name}}}") for each in named}
                positional = [values.pop(each.name) for each in named if each.kind is each.POSITIONAL_ONLY]
                call = attribute.describe(noun, *positional, **values)
                parameters_named = frozenset(each.name for each in named)
                yield Method(
                    f"{name}.{attribute.describe.__name__}", call, parameters_named, len(named) < len(parameters)
                )


METHODS = list(_methods())


@pytest.fixture(scope="module")
def described() -> dict[str, Any]:
    return document()


def _operations(described: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (method.upper(), path)
        for path, methods in described["paths"].items()
        for method in methods
        if path.startswith("/v1/")
    ]


def _methods_of(operation: tuple[str, str]) -> list[Method]:
    return [each for each in METHODS if (each.call.method, unquote(each.call.path)) == operation]


def test_the_endpoint_settings_have_the_help_of_their_definitions() -> None:
    assert {each.name: each.help for each in ENDPOINT_SETTINGS} == SETTINGS


def test_every_operation_has_a_method_with_its_parameters(described: dict[str, Any]) -> None:
    for operation in _operations(described):
        methods = _methods_of(operation)
        assert methods, operation
        details = described["paths"][operation[1]][operation[0].lower()]
        accepted = {each["in"]: set() for each in details.get("parameters", ())} | {"query": set(), "header": set()}
        for each in details.get("parameters", ()):
            accepted[each["in"]].add(each["name"])
        for method in methods:
            assert set(method.call.query) == accepted["query"], operation
            if "idempotency_key" not in method.call.query:
                assert ("idempotency_key" in method.parameters) == ("Idempotency-Key" in accepted["header"]), operation
            assert ("if_match" in method.parameters) == ("If-Match" in accepted["header"]), operation
            if not method.takes_any_field:
                # The client sends `idempotency_key` as a header or as a field.
                key = {"idempotency_key"}
                assert set(method.call.body or ()) - key == _fields(described, details) - key, operation


def _fields(described: dict[str, Any], operation: dict[str, Any]) -> set[str]:
    """Return the fields of an operation's body."""
    if "requestBody" not in operation:
        return set()
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    for option in schema.get("anyOf", [schema]):
        if "$ref" in option:
            found = described["components"]["schemas"][option["$ref"].rpartition("/")[2]]
            return set(found.get("properties", ()))
    raise AssertionError(schema)


def test_every_method_calls_an_existing_operation(described: dict[str, Any]) -> None:
    assert {(each.call.method, unquote(each.call.path)) for each in METHODS} == {*_operations(described)}


def test_methods_have_signatures_and_docstrings() -> None:
    client, asynchronous = Client("https://webhooks.example"), AsyncClient("https://webhooks.example")
    for one in (client, asynchronous):
        assert str(inspect.signature(one.endpoints.get)) == "(endpoint: str) -> dict[str, typing.Any]"
        assert (one.endpoints.get.__name__, one.deliveries.iterate.__name__) == ("get", "iterate")
        assert "status" in inspect.signature(one.deliveries.iterate).parameters
        assert "page size" in (one.deliveries.iterate.__doc__ or "")
    assert asyncio.iscoroutinefunction(asynchronous.endpoints.get)
    for noun in (Everything, *(type(each) for each in vars(client).values() if isinstance(each, Noun))):
        for name, attribute in vars(noun).items():
            if not name.startswith("_"):
                assert getattr(noun, name) is attribute
                assert isinstance(attribute, verb | every)
                assert attribute.__doc__


TYPED = """
from typing import Any, assert_type
from collections.abc import AsyncIterator, Iterator
from uplift_webhooks import AnyEvent
from uplift_webhooks.api import AsyncClient, Client, Page

client, asynchronous = Client(), AsyncClient()
assert_type(client.endpoints.get("ep_1"), dict[str, Any])
assert_type(client.deliveries.list(status="failed"), Page)
assert_type(client.deliveries.iterate(status="failed"), Iterator[dict[str, Any]])
assert_type(client.events.fetch("e"), AnyEvent)
assert_type(client.endpoints.delete("ep_1"), None)
client.endpoints.get(5)  # type: ignore[arg-type]
client.deliveries.iterate(status="lost")  # type: ignore[arg-type]
client.replays.create("ep_1", rate=3)  # type: ignore[call-arg]


async def ask() -> None:
    assert_type(await asynchronous.endpoints.get("ep_1"), dict[str, Any])
    assert_type(await asynchronous.source_ips(), dict[str, Any])
    assert_type(asynchronous.replays.iterate(), AsyncIterator[dict[str, Any]])
    await asynchronous.endpoints.get(5)  # type: ignore[arg-type]
"""


def test_type_checkers_know_the_method_types(tmp_path: Path) -> None:
    (tmp_path / "typed.py").write_text(TYPED)
    source = Path(__file__).parents[2] / "receiver/src"
    settings = ["--strict", "--warn-unused-ignores", "--config-file", "", "--cache-dir", str(tmp_path / "cache")]

    done = subprocess.run(
        [sys.executable, "-m", "mypy", *settings, "typed.py"],
        cwd=tmp_path,
        env={"MYPYPATH": str(source), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout.partition(":")[0]) == (0, "Success"), done.stdout + done.stderr
