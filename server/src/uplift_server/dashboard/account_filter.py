"""The account filter on pages that show all accounts."""

from dataclasses import replace

from uplift_server.core.problems import Problem
from uplift_server.dashboard.visit import Visit
from uplift_server.service.principals import Caller


def filtered_caller(visit: Visit, problems: list[Problem]) -> Caller:
    """Return the caller for service calls, limited to one account if the URL selects an account.

    The URL parameter `account` contains an account's ID, its uid, or a part of its name. If no account or more than one
    account matches, add a problem to `problems`.
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
            message = "No account has this ID, this uid, or this text in its name. Enter another ID or name."
        problems.append(Problem("account", "account_unknown", message))
        return visit.caller
    return replace(visit.caller, account_seq=found[0].seq)
