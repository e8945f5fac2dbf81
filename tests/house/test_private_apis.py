"""Private APIs of libraries: each is used in only one module, and an incompatible release fails a test."""

import ast
import inspect
import re
from typing import Any

import pytest
import typer
import uvicorn
from fastapi import APIRouter, Depends
from fastapi.routing import APIRoute
from tests.house.conftest import MODULES
from typer._completion_shared import get_completion_script, install
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.asyncio.client import ClientConnection, connect

from uplift_server.api.bounded_websocket import BoundedWebsocket
from uplift_server.api.heads import BoundedHeads
from uplift_server.app.http_server import HttpServer
from uplift_webhooks.cli.kit import program
from uplift_webhooks.cli.listening import stream

ONLY_IN = {
    r"typer\.core|typer\._.*|click(\..*)?": "uplift_webhooks.cli.kit.program",
    r"uvicorn\.protocols\.http\..*": "uplift_server.api.heads",
    r"uvicorn\.protocols\.websockets\..*": "uplift_server.api.bounded_websocket",
    r"uvicorn": "uplift_server.app.http_server",
    r"fastapi\.openapi\..*": "uplift_server.api.openapi",
    r"fastapi\.dependencies(\..*)?": "none",
}
"""For each pattern of module names: the only module that may import these modules, or `none`."""
ATTRIBUTES_ONLY_IN = {
    r"\.dependant\b": "uplift_server.api.route_readers",
    r"\bprocess_redirect\b": "uplift_webhooks.cli.listening.stream",
    r"\b(socket|connection|_open|_newest)\.transport\b": "uplift_webhooks.cli.listening.stream",
}
EXTENDED = [
    (BoundedHeads, HttpToolsProtocol),
    (BoundedWebsocket, WebSocketsSansIOProtocol),
    (HttpServer, uvicorn.Server),
    (program.Command, TyperCommand),
    (program.Group, TyperGroup),
    (program.Noun, TyperGroup),
    (program._Program, TyperGroup),
    (stream._Connect, connect),
]
"""Our classes, and the library classes that they extend."""


@pytest.mark.parametrize("pattern", ONLY_IN)
def test_one_module_imports_private_modules(pattern: str) -> None:
    importers = {each.name for each in MODULES for _, name in each.imports() if re.fullmatch(pattern, name)}
    assert importers <= {ONLY_IN[pattern]}


@pytest.mark.parametrize("pattern", ATTRIBUTES_ONLY_IN)
def test_one_module_uses_private_attributes(pattern: str) -> None:
    users = {each.name for each in MODULES if re.search(pattern, each.text)}
    assert users == {ATTRIBUTES_ONLY_IN[pattern]}


def sources(of: type) -> str:
    return "\n".join(inspect.getsource(each) for each in of.__mro__ if each.__module__.partition(".")[0] != "builtins")


def tree(of: type) -> ast.AST:
    return ast.parse(inspect.getsource(of))


def attributes(of: type, owner: str) -> set[str]:
    """Return the attributes of a variable, or of `super()`, that the source of a class uses."""
    return {
        node.attr for node in ast.walk(tree(of)) if isinstance(node, ast.Attribute) and ast.unparse(node.value) == owner
    }


@pytest.mark.parametrize(("ours", "theirs"), EXTENDED, ids=lambda each: each.__qualname__)
def test_the_extended_class_has_the_used_attributes(ours: type, theirs: type) -> None:
    own = {name for each in ours.__mro__ if each.__module__.startswith("uplift_") for name in vars(each)}
    own |= {name for each in ours.__mro__ if each.__module__.startswith("uplift_")
            for name in getattr(each, "__annotations__", {})}  # fmt: skip
    text = sources(theirs)
    missing = [
        name
        for name in attributes(ours, "self") | attributes(ours, "super()")
        if not hasattr(theirs, name) and not re.search(rf"\bself\.{name}\b", text) and name not in own
    ]
    assert not missing


@pytest.mark.parametrize(("ours", "theirs"), EXTENDED, ids=lambda each: each.__qualname__)
def test_overridden_methods_are_called_as_before(ours: type, theirs: type) -> None:
    public = [name for name, each in vars(ours).items() if inspect.isfunction(each) and not name.startswith("_")]
    assert public
    assert attributes(ours, "super()") | {*public} <= {*dir(theirs)}
    for name in public:
        expected = inspect.signature(getattr(theirs, name)).parameters
        assert [*inspect.signature(vars(ours)[name]).parameters][: len(expected)] == [*expected], name


def test_uvicorn_requests_have_the_used_state() -> None:
    text = sources(RequestResponseCycle)
    used = attributes(BoundedHeads, "cycle") | attributes(BoundedHeads, "self.cycle")
    assert {"response_complete", "message_event"} <= used
    assert not [name for name in used if not re.search(rf"\bself\.{name}\b", text)]
    text = sources(HttpToolsProtocol)
    assert re.search(r"self\.pipeline\.(append(left)?|pop)\b", text)
    assert "config.loaded_app" in text
    assert "self.flow" in text


def test_fastapi_routes_expose_their_dependencies() -> None:
    def reader() -> None: ...

    router = APIRouter()
    router.get("/", dependencies=[Depends(reader)])(lambda: None)
    [route] = router.routes
    assert isinstance(route, APIRoute)
    assert [each.call for each in route.dependant.dependencies] == [reader]


def test_typer_completes_for_a_named_shell() -> None:
    assert "_UPLIFT_COMPLETE" in get_completion_script(
        prog_name="uplift", complete_var="_UPLIFT_COMPLETE", shell="bash"
    )
    assert {"shell", "prog_name"} <= {*inspect.signature(install).parameters}


def test_typer_reports_wrong_usage_as_an_exception() -> None:
    app = program.program("tool", "1", "A tool.")
    app.command("run")(lambda: None)
    app.command("stop")(lambda: None)
    with pytest.raises(TyperException) as caught:
        typer.main.get_command(app).main(["nonsense"], "tool", standalone_mode=False)
    error: Any = caught.value
    assert (error.exit_code, error.ctx.command_path) == (2, "tool")
    assert "nonsense" in error.format_message()


def test_connections_of_websockets_can_be_aborted() -> None:
    assert "self.transport" in sources(ClientConnection)
