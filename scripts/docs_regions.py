"""The generated regions of the documentation, each with its page, its name and the function that generates it.

A region is between `<!-- generated: NAME -->` and `<!-- end generated -->`.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from docs_commands import commands
from docs_field_codes import FIELD_CODES
from docs_lifecycle import lifecycle
from docs_values import chart_values

from uplift_server.api.documentation.reference_tables import table
from uplift_server.config import SETTINGS, Setting
from uplift_server.core.deliveries.causes import BY_ERROR, BY_REASON, BY_STATUS, Explanation, explain
from uplift_server.core.deliveries.outcomes import Outcome
from uplift_server.core.http.address_ranges import BLOCKS, Reach
from uplift_server.observe.metrics import METRICS
from uplift_server.service.problem_documents import STATUS, TITLES

_END: Final = "<!-- end generated -->\n"
_LOCATION: Final = "https://example.com/new"
_LOGIN: Final = "https://example.com/login"


def settings() -> str:
    """Return the table of settings."""
    rows = [(f"`{each.name}`", each.kind, _default(each), each.help) for each in SETTINGS]
    return table(("Setting", "Value", "Default", "Description"), rows)


def metrics() -> str:
    """Return the table of metrics."""
    rows = [
        (f"`{each.name}`", each.kind, f"`{each.label}`" if each.label else "", each.across_processes, each.help)
        for each in METRICS
    ]
    return table(("Metric", "Kind", "Label", "Processes", "Description"), rows)


def error_codes() -> str:
    """Return the table of error codes, which link to their sections."""
    return table(
        ("Status", "Code", "Meaning"),
        [(str(status), f"[`{code}`](#{code})", TITLES[code]) for code, status in STATUS.items()],
    )


def field_codes() -> str:
    """Return the table of field codes."""
    return table(("Code", "Cause"), [(f"`{code}`", cause) for code, cause in FIELD_CODES.items()])


def causes(outcome: Outcome) -> str:
    """Return the causes of an outcome and how to fix them."""
    rows = [(f"`{each.code}`", each.title, each.cause, each.remedy) for each in _explanations(outcome)]
    return table(("Code", "Title", "Cause", "How to fix it"), rows)


def reasons() -> str:
    """Return the known reasons in responses and how to fix them."""
    rows = [(f"`{each.code}`", each.title, each.cause, each.remedy) for each in BY_REASON.values()]
    return table(("Code", "Title", "Cause", "How to fix it"), rows)


def address_blocks() -> str:
    """Return the table of address blocks."""
    allowed = {
        Reach.PUBLIC: "Yes, over HTTPS",
        Reach.PRIVATE: "If private networks are allowed",
        Reach.FORBIDDEN: "No",
        Reach.EMBEDDED: "Depends on the embedded IPv4 address",
    }
    rows = [(f"`{each.network}`", each.name, each.source, allowed[each.reach]) for each in BLOCKS]
    return table(("Addresses", "Purpose", "Source", "Allowed"), rows)


def catalog() -> str:
    """Return the event catalog."""
    from docs_catalog import catalog_markdown

    return str(catalog_markdown())


REGIONS: Final[tuple[tuple[str, str, Callable[[], str]], ...]] = (
    ("ARCHITECTURE.md", "lifecycle", lifecycle),
    ("docs/addresses.md", "address-blocks", address_blocks),
    ("docs/cli.md", "commands", partial(commands, "uplift-server")),
    ("docs/configuration.md", "settings", settings),
    ("docs/errors.md", "error-codes", error_codes),
    ("docs/errors.md", "field-codes", field_codes),
    ("docs/kubernetes.md", "chart-values", chart_values),
    ("docs/monitoring.md", "metrics", metrics),
    ("docs/outcomes.md", "reasons", reasons),
    *(("docs/outcomes.md", each.text, partial(causes, each)) for each in Outcome if each is not Outcome.DELIVERED),
    *([("docs/catalog.md", "catalog", catalog)] if find_spec("docs_catalog") else []),
)
"""Each region as a page, a name and a function that returns the region's content."""


def stale_regions(root: Path, *, write: bool) -> list[tuple[str, str]]:
    """Return the page and name of each region that differs from the code. With `write`, update these regions."""
    stale = []
    for page, name, generate in REGIONS:
        path = root / page
        text = path.read_text(encoding="utf-8")
        begin = f"<!-- generated: {name} -->\n"
        before, found, rest = text.partition(begin)
        old, end, after = rest.partition(_END)
        if not found or not end:
            raise SystemExit(f"{page} has no region {name}: add {begin.strip()} and {_END.strip()}.")
        new = f"\n{generate().strip()}\n\n"
        if new != old:
            stale.append((page, name))
            if write:
                path.write_text(before + begin + new + end + after, encoding="utf-8")
    return stale


def _default(setting: Setting) -> str:
    if setting.derived:
        return setting.derived
    return "none" if setting.default is None else f"`{setting.default}`"


def _explanations(outcome: Outcome) -> list[Explanation]:
    """Return every explanation of an outcome."""
    if outcome in BY_ERROR:
        return [explanation for _, explanation in BY_ERROR[outcome]]
    if outcome is Outcome.REDIRECT:
        found = [explain(outcome, status_code=301, error=None, location=each) for each in (_LOCATION, _LOGIN, None)]
    elif outcome is Outcome.THROTTLED:
        found = [explain(outcome, status_code=429, error=None, location=None)]
    else:
        first = 400 if outcome is Outcome.CLIENT_ERROR else 500
        own = [each for each in BY_STATUS if first <= each < first + 100 and each != 429]
        found = [explain(outcome, status_code=each, error=None, location=None) for each in [*own, None]]
        if (last := found[-1]) is not None:
            found[-1] = replace(last, code="status_<n>", cause=last.cause.replace(" a ", " another ", 1))
    return [each for each in found if each is not None]
