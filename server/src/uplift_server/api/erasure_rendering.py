"""Converts erasures to API models."""

from typing import Literal

from pydantic import BaseModel, Field

from uplift_server.api.views import CreatedAt, Timestamp
from uplift_server.core import ids
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp
from uplift_server.service.erasures import ErasurePreview
from uplift_server.store.erasures import Erasure


class ErasureView(BaseModel):
    """A job that erases events. A completed erasure serves as its own receipt."""

    id: str = Field(description="Erasure ID (`ers_…`).")
    state: Literal["running", "completed"] = Field(description="Current state of the erasure.")
    object_id_digest: str | None = Field(
        description="Keyed digest of the object ID. All erasures of the same object in the account have the same"
        " digest. Null if the erasure selects events by their IDs."
    )
    events: int = Field(
        description="Number of events that this erasure has erased so far. Events erased earlier do not count."
    )
    missing: int = Field(description="Number of requested IDs that do not match an event in the account.")
    created_at: CreatedAt
    completed_at: Timestamp | None = Field(
        description="When the server erased the last copy. Null while the erasure is running."
    )


class ErasurePreviewView(BaseModel):
    """The number of events that an erasure would erase, and the times of the oldest and newest of these events."""

    object_id_digest: str | None = Field(
        description="Keyed digest of the object ID. Null if the erasure selects events by their IDs."
    )
    events: int = Field(
        description="Number of events to erase. If the erasure selects events by object ID, the number excludes events"
        " from early releases, which did not store object IDs. The erasure erases these events too."
    )
    missing: int = Field(description="Number of requested IDs that do not match an event in the account.")
    oldest_at: Timestamp | None = Field(description="Time of the oldest event.")
    newest_at: Timestamp | None = Field(description="Time of the newest event.")
    complete: bool = Field(description="False if the count stopped early and covers only the newer events.")


def erasure_view(erasure: Erasure) -> ErasureView:
    """Return the API model of an erasure."""
    return ErasureView(
        id=ids.prefixed(ids.ERASURE, erasure.id),
        state="running" if erasure.completed_at is None else "completed",
        object_id_digest=erasure.object_digest,
        events=erasure.events,
        missing=erasure.missing,
        created_at=format_timestamp(erasure.created_at),
        completed_at=format_optional_timestamp(erasure.completed_at),
    )


def erasure_preview(preview: ErasurePreview) -> ErasurePreviewView:
    """Return the API model of an erasure preview."""
    return ErasurePreviewView(
        object_id_digest=preview.object_digest,
        events=preview.found.events,
        missing=preview.missing,
        oldest_at=format_optional_timestamp(preview.found.oldest_at),
        newest_at=format_optional_timestamp(preview.found.newest_at),
        complete=preview.complete,
    )
