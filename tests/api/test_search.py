"""Search within the time limit."""

from dataclasses import replace
from typing import Any

import pytest

from uplift_server.service import search
from uplift_server.service.search import Hit, HitKind
from uplift_server.store import event_objects

from .test_operator_views import caller


def test_many_events_of_other_accounts_do_not_hide_an_object(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    mine, theirs = server.account(), server.account()
    server.event(mine, object_id="shared")
    for _ in range(3):
        server.event(theirs, object_id="shared")
    seq = next(
        each.seq for each in server.services.context.cache.accounts_by_id.values() if mine.endswith(each.id.hex())
    )

    def found(text: str) -> list[Hit]:
        hits: list[Hit] = server.run(
            lambda: server.services.search.find(replace(caller(server), account_seq=seq), text)
        )
        return hits

    [complete] = found("shared")
    assert complete.at is not None
    # The time is up after a page with one candidate, which belongs to the other account.
    monkeypatch.setattr(search, "SEARCH_MS", 0)
    monkeypatch.setattr(event_objects, "CANDIDATES_MAX", 1)
    assert [(each.kind, each.id) for each in found("shared")] == [(HitKind.OBJECT, "shared")]
    assert found("nobody") == []
