"""A mail server, and certificates for it."""

import asyncio
import ssl
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import trustme
import uvloop
from tests.mail.smtp_server import SmtpStub


def pytest_asyncio_loop_factories(config: Any, item: Any) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Use the event loop of the server."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
def smtp_server() -> Iterator[SmtpStub]:
    """A mail server that does not listen yet."""
    smtp_server = SmtpStub()
    yield smtp_server
    smtp_server.close()


class Authority:
    """Certificate authority with its certificate in a file."""

    def __init__(self, folder: Path) -> None:
        self._authority = trustme.CA()
        self.file = str(folder / "authority.pem")
        self._authority.cert_pem.write_to_path(self.file)

    def server(self, *names: str) -> ssl.SSLContext:
        """Return TLS settings of a server with these names."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._authority.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority. Clients trust it if they load its file."""
    return Authority(tmp_path_factory.mktemp("authority"))
