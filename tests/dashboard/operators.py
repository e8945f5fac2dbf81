"""Sign-in of an operator in a browser."""

from playwright.sync_api import Page
from tests.e2e.harness import OPERATOR_KEY


def sign_in_operator(page: Page) -> Page:
    """Sign in with the operator key."""
    page.goto("/sign-in/operator")
    page.get_by_label("Operator key").fill(OPERATOR_KEY)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/operator")
    return page
