"""Accessibility checks with axe-core."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page
from tests.node_packages import installed

TAGS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
COLORS = ("color-contrast", "link-in-text-block")
PLACES_MAX = 5
"""Maximum number of places in the message about one violation."""


@cache
def _axe() -> str:
    packages = installed(Path(__file__).with_name("node") / "package-lock.json")
    if isinstance(packages, str):
        pytest.fail(f"axe-core is not available: {packages} (Debian: apt-get install -y npm)", pytrace=False)
    return (packages / "axe-core/axe.min.js").read_text(encoding="utf-8")


def check_accessibility(page: Page, *, colors_only: bool = False) -> None:
    """Fail if a page has an accessibility violation now (WCAG 2.2, A and AA, and best practices).

    With `colors_only`, check only color contrast.

    The script runs through the debugger protocol, so the page's Content-Security-Policy does not block it.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(_axe())
    results = page.evaluate(
        """async (rules) => {
            // Finish animations: a color in transition is not final, and a closed menu would keep it.
            for (const each of document.getAnimations()) each.finish();
            const run = await axe.run(document, {runOnly: rules, resultTypes: ['violations']});
            return {passes: run.passes.length, violations: run.violations};
        }""",
        COLORS if colors_only else TAGS,
    )
    assert results["passes"], "axe-core checked nothing"
    found = results["violations"]
    assert not found, f"{len(found)} accessibility violations on {page.url}:\n" + "\n".join(map(_describe, found))


def _describe(violation: dict[str, Any]) -> str:
    nodes = violation["nodes"]
    places = [
        f"    {' '.join(map(str, node['target']))}: {node['html'][:160]}\n"
        f"      {' '.join(each['message'] for kind in ('any', 'all', 'none') for each in node[kind])}"
        for node in nodes[:PLACES_MAX]
    ]
    more = [f"    and {len(nodes) - PLACES_MAX} more"] if len(nodes) > PLACES_MAX else []
    head = f"  {violation['id']} ({violation['impact']}): {violation['help']}"
    return "\n".join([head, *places, *more])
