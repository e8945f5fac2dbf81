"""A mail server, and certificates for it."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from tests.mail.smtp_server import Postbox


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """On the event loop that the server runs on."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def postbox() -> Iterator[Postbox]:
    """A mail server, not yet listening."""
    postbox = Postbox()
    yield postbox
    postbox.close()


class Authority:
    """An authority with a file of its certificate, and what a server at an address needs."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.file = str(folder / "authority.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def server(self, *names: str) -> ssl.SSLContext:
        """The settings of a server that is known by these names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Trusted by those who are told of its file."""
    return Authority(tmp_path_factory.mktemp("authority"))
