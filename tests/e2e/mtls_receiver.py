"""A receiver that requires a client certificate, in a separate process."""

import contextlib
import json
import ssl
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import trustme


class MtlsReceiver:
    """The process, and the authority that it trusts."""

    def __init__(self, folder: Path) -> None:
        self.clients = trustme.CA()
        self._served = trustme.CA()
        self.ca_file, trusted, own = folder / "ca.pem", folder / "clients.pem", folder / "server.pem"
        self._served.cert_pem.write_to_path(str(self.ca_file))
        self.clients.cert_pem.write_to_path(str(trusted))
        self._served.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(str(own))
        command = [sys.executable, __file__, str(own), str(trusted)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.url = f"https://localhost:{int(self.process.stdout.readline())}/hook"

    def auth(self, name: str, authority: trustme.CA | None = None, **options: Any) -> dict[str, str]:
        """Return an endpoint's authentication settings with a new certificate."""
        issued = (authority or self.clients).issue_cert(common_name=name, **options)
        chain = "".join(each.bytes().decode() for each in issued.cert_chain_pems)
        return {"type": "mtls", "certificate": chain, "private_key": issued.private_key_pem.bytes().decode()}


@contextlib.contextmanager
def mtls_receiver(folder: Path) -> Iterator[MtlsReceiver]:
    """Run the process during the block."""
    receiver = MtlsReceiver(folder)
    try:
        yield receiver
    finally:
        receiver.process.kill()
        receiver.process.communicate()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Respond with the common name of the client."""
        self.rfile.read(int(self.headers["content-length"]))
        assert isinstance(self.connection, ssl.SSLSocket)
        certificate = self.connection.getpeercert()
        assert certificate is not None
        subject: Any = certificate["subject"]
        name = json.dumps(dict(pair for group in subject for pair in group)["commonName"]).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(name)))
        self.end_headers()
        self.wfile.write(name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name of the base class
        """Print nothing."""


class _Server(ThreadingHTTPServer):
    context: ssl.SSLContext

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Perform the handshake in the thread of the connection."""
        with contextlib.suppress(OSError):
            encrypted = self.context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            try:
                encrypted.do_handshake()
            except ssl.SSLError:
                # Read the request first. Closing with unread data would send RST, which may overtake the TLS alert.
                while request.recv(65536) if request.fileno() >= 0 else b"":
                    pass
                raise
            _Handler(encrypted, client_address, self)


if __name__ == "__main__":
    server = _Server(("127.0.0.1", 0), _Handler)
    server.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.context.load_cert_chain(sys.argv[1])
    server.context.load_verify_locations(sys.argv[2])
    server.context.verify_mode = ssl.CERT_REQUIRED
    sys.stdout.write(f"{server.server_port}\n")
    sys.stdout.flush()
    server.serve_forever()
