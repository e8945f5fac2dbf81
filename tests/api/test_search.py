"""The search finds an object ID of an account even if other accounts use the same object ID."""

from dataclasses import replace
from typing import Any

import pytest

from uplift_server.service.search import Hit, HitKind
from uplift_server.store import event_objects

from .test_operator_views import caller


def test_many_events_of_other_accounts_do_not_hide_an_object(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_objects, "CANDIDATES_MAX", 1)
    mine, theirs = server.account(), server.account()
    server.event(mine, object_id="shared")
    for object_id in ("shared", "shared", "theirs"):
        server.event(theirs, object_id=object_id)
    seq = next(
        each.seq for each in server.services.context.cache.accounts_by_id.values() if mine.endswith(each.id.hex())
    )

    def found(text: str) -> list[Hit]:
        hits: list[Hit] = server.run(
            lambda: server.services.search.find(replace(caller(server), account_seq=seq), text)
        )
        return hits

    assert [(each.kind, each.id) for each in found("shared")] == [(HitKind.OBJECT, "shared")]
    assert found("theirs") == []
