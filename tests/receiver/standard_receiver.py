"""A receiver with the public Standard Webhooks library, without our code.

Run it with PORT and SECRET (or `--port`, `--secret`). GET /received returns request counts and event IDs as JSON.
"""

import argparse
import os
import threading

from flask import Flask, Response, jsonify, request
from standardwebhooks import Webhook, WebhookVerificationError


def create_app(secret: str) -> Flask:
    """Return the receiver's WSGI application for one `whsec_…` secret."""
    app = Flask(__name__)
    webhook = Webhook(secret)
    lock = threading.Lock()
    received = {"verified": 0, "rejected": 0}
    ids: list[str] = []

    @app.post("/webhook/submit")
    def submit() -> Response:
        try:
            event = webhook.verify(request.get_data(), dict(request.headers))
        except WebhookVerificationError as error:
            with lock:
                received["rejected"] += 1
            return Response(str(error), status=400)
        with lock:
            received["verified"] += 1
            ids.append(event["id"])
        return Response(status=204)

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
