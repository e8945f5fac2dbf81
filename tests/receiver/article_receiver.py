"""A receiver from Uplift's help center article, without our code: Flask and the HMAC of the body.

Source: the articles "Setting up webhooks" and "Webhook secrets". A POST route compares `x-uplift-signature-256` with
the HMAC-SHA256 of the body, with the secret's text as the key. It responds with 200 if they match, and 401 otherwise.

Run it with PORT and SECRET (or `--port`, `--secret`). GET /received returns request counts and event IDs as JSON.
"""

import argparse
import hashlib
import hmac
import os
import threading

from flask import Flask, Response, jsonify, request


def create_app(secret: str) -> Flask:
    """Return the receiver's WSGI application for one secret."""
    app = Flask(__name__)
    lock = threading.Lock()
    received = {"verified": 0, "rejected": 0}
    ids: list[str] = []

    def is_valid_signature(body: bytes, header: str | None) -> bool:
        if header is None:
            return False
        expected = "sha256=" + hmac.new(secret.encode("utf-8"), body, hashlib.sha256).hexdigest()
        return hmac.compare_digest(expected, header)

    @app.post("/webhook/submit")
    def submit() -> Response:
        body = request.get_data()
        if not is_valid_signature(body, request.headers.get("x-uplift-signature-256")):
            with lock:
                received["rejected"] += 1
            return Response("bad signature", status=401)
        event = request.get_json()
        with lock:
            received["verified"] += 1
            ids.append(event["id"])
        return Response("ok", status=200)

    @app.get("/received")
    def counts() -> Response:
        with lock:
            return jsonify({**received, "ids": list(ids)})

    return app


def main() -> None:
    """Serve on 127.0.0.1 until killed. Print `listening on <port>` when the port accepts connections."""
    from werkzeug.serving import make_server

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=int(os.environ.get("PORT", "0")), help="0 chooses a free one")
    parser.add_argument("--secret", default=os.environ.get("SECRET", ""))
    arguments = parser.parse_args()
    server = make_server("127.0.0.1", arguments.port, create_app(arguments.secret), threaded=True)
    print(f"listening on {server.port}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
