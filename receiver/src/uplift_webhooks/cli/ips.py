"""`uplift ips`: show the server's egress IPs."""

import typer

from uplift_webhooks.cli.kit.tables import Column
from uplift_webhooks.cli.session import Session, command


def register(app: typer.Typer) -> None:
    """Add the `ips` command to the program."""
    command(app, "ips", examples=("uplift ips", "uplift ips --json | jq -r .address"))(ips)


def ips(session: Session) -> None:
    """List the server's egress IPs.

    Allow these addresses in your firewall. For each upcoming address, the list shows when the server starts to use it.
    The command does not need an API key.
    """
    found = session.calls(keyless=True).get("/v1/source-ips")
    rows = [{"address": each, "from": None} for each in found["current"]]
    rows += [{"address": each["address"], "from": each["from"]} for each in found["upcoming"]]
    session.output.rows(
        rows if session.output.as_json else [{**each, "from": each["from"] or "now"} for each in rows],
        [Column("address", "ADDRESS"), Column("from", "IN USE FROM")],
        empty="This server does not publish its egress IPs.",
    )
