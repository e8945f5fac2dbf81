"""The request that all clients send. It has the headers of a real delivery, and a body of 1 KiB."""

from typing import Final

EVENT_ID: Final = "0197f0c2-5a1e-7b7c-8d10-2f6f6f1f7a10"
END: Final = b'"}}}'
BODY: Final = (
    f'{{"id":"{EVENT_ID}","object":"event","type":"movement.analytics.created","api_version":"01/01/2022",'
    '"created":1764000000000,"data":{"object":{"pad":"'
).encode()
BODY_BYTES: Final = 1024


def body() -> bytes:
    """Return 1 KiB of JSON."""
    return BODY + b"x" * (BODY_BYTES - len(BODY) - len(END)) + END


def headers() -> dict[str, str]:
    """Return the headers of a delivery except `host` and `content-length`."""
    return {
        "content-type": "application/json",
        "user-agent": "Uplift-Webhooks/bench",
        "x-uplift-signature-256": "sha256=" + "0" * 64,
        "webhook-id": EVENT_ID,
        "webhook-timestamp": "1764000000",
        "webhook-signature": "v1," + "A" * 43 + "=",
        "x-uplift-event": "movement.analytics.created",
        "x-uplift-delivery": "dlv_" + "0" * 44,
        "x-uplift-attempt": "1",
    }


def raw(port: int, path: str) -> bytes:
    """Return the whole request."""
    content = body()
    lines = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{port}", f"content-length: {len(content)}"]
    lines += [f"{name}: {value}" for name, value in headers().items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


def wrk_script(path: str) -> str:
    """Return the same request for `wrk`."""
    lines = ['wrk.method = "POST"', f'wrk.path = "{path}"', f"wrk.body = [[{body().decode()}]]"]
    lines += [f'wrk.headers["{name}"] = "{value}"' for name, value in headers().items()]
    return "\n".join(lines) + "\n"
