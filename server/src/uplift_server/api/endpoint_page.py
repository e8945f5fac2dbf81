"""Where the mails about an endpoint lead: what to do about it, and nothing that needs a right to be seen."""

from html import escape
from typing import Final

from uplift_server.api.documentation.documents import STYLE

_STEPS: Final = (
    ("See what is wrong, since when, and what to do", "GET", "", None, "uplift-server endpoints {id}"),
    ("Send it a test", "POST", "/test", None, "uplift-server endpoint test {id}"),
    (
        "Switch it on again, with all it held",
        "POST",
        "/enable",
        '{"held": "send"}',
        "uplift-server endpoint enable {id} --held send",
    ),
    (
        "See what was not delivered",
        "GET",
        "/deliveries?status=failed",
        None,
        "uplift-server deliveries --endpoint {id}",
    ),
)


def endpoint_page(endpoint: str) -> str:
    """The page, as HTML. `endpoint` is an endpoint's id as it stands in the URL, whether there is one or not."""
    return "".join(
        (
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta name="viewport" content="width=device-width,initial-scale=1">',
            f'<title>Endpoint {escape(endpoint)}</title><link rel="stylesheet" href="{STYLE}"></head><body><main>',
            f"<h1>Endpoint <code>{escape(endpoint)}</code></h1>",
            "<p>With an API key of its account, and for operators on the command line:</p>",
            *(_step(endpoint, *step) for step in _STEPS),
            '<p>All calls are described in <a href="/docs/api">the documentation</a>.</p></main></body></html>',
        )
    )


def _step(endpoint: str, title: str, verb: str, path: str, body: str | None, command: str) -> str:
    call = f'curl -X {verb} "$UPLIFT_API_URL/v1/endpoints/{endpoint}{path}" -H "Authorization: Bearer $KEY"'
    if body is not None:
        call += f" -H 'Content-Type: application/json' -d '{body}'"
    return f"<h2>{escape(title)}</h2><pre>{escape(call)}\n{escape(command.format(id=endpoint))}</pre>"
