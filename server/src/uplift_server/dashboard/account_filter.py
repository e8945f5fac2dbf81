"""The filter by account on pages of all accounts."""

from dataclasses import replace

from uplift_server.core.problems import Problem
from uplift_server.dashboard.visit import Visit
from uplift_server.service.principals import Caller


def filtered_caller(visit: Visit, problems: list[Problem]) -> Caller:
    """Return the caller for the account in the URL: its ID, uid, name, or a part of its name.

    Adds a problem if there is not exactly one such account.
    """
    text = visit.query.text("account")
    if visit.account is not None or not text:
        return visit.caller
    cache = visit.services.context.cache
    accounts, exact = cache.accounts_by_id, cache.find_account(text)
    found = [each for each in accounts.values() if each is exact or each.name.casefold() == text.casefold()]
    found = found or [each for each in accounts.values() if text.casefold() in each.name.casefold()]
    if len(found) != 1:
        message = "Several accounts have this text in their name. Enter the account ID."
        if not found:
            message = "No account has this ID or uid, or this text in its name."
        problems.append(Problem("account", "account_unknown", message))
        return visit.caller
    return replace(visit.caller, account_seq=found[0].seq)
