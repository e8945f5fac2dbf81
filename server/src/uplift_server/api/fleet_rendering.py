"""API models of the state of the server and all endpoints, and the functions that create these models."""

from typing import Literal

from pydantic import BaseModel, Field

from uplift_server.api.views import Timestamp
from uplift_server.core.operations.fleet import CauseGroup, FleetProblem
from uplift_server.core.timestamps import format_optional_timestamp, format_timestamp
from uplift_server.service.operator_overview import OverviewState


class FleetProblemView(BaseModel):
    """A problem with the server or with many endpoints."""

    code: str = Field(description="Stable code, such as `endpoints_failing` or `server_late`.")
    severity: Literal["attention", "critical"] = Field(description="Severity of the problem.")
    title: str = Field(description="The problem in one sentence.")
    extent: str = Field(description="Extent of the problem, such as the number of accounts.")
    next_step: str = Field(description="Next step for the operator.")
    since: Timestamp | None = Field(description="When the problem began. Null if unknown.")


class FailingCauseView(BaseModel):
    """A cause that makes endpoints fail, with counts of the affected endpoints, accounts and deliveries."""

    cause: str = Field(description="Stable code of the cause, such as `tls_certificate_expired`.")
    title: str = Field(description="The cause in a few words.")
    how_to_fix: str = Field(description="How the account can fix the cause.")
    endpoints: int = Field(description="Number of failing endpoints with this cause.")
    accounts: int = Field(description="Number of accounts that own these endpoints.")
    pending_deliveries: int = Field(description="Number of pending deliveries to these endpoints.")
    oldest_due_at: Timestamp | None = Field(description="When the oldest due delivery to these endpoints became due.")
    since: Timestamp = Field(description="When the first of these endpoints began to fail.")


class FleetView(BaseModel):
    """The state of the server and all endpoints."""

    status: Literal["ok", "attention", "critical"] = Field(description="Severity of the worst problem.")
    read_at: Timestamp | None = Field(
        description="When the server last counted the deliveries. Null if the database does not respond."
    )
    problems: list[FleetProblemView] = Field(description="All problems, worst first.")
    endpoints: dict[str, int] = Field(
        description="Number of endpoints by state. The state of an enabled endpoint is its health: `unknown`,"
        " `healthy`, `failing` or `warned`."
    )
    pending_deliveries: int | None = Field(
        description="Number of pending deliveries. Null after an upgrade, until the server has counted them."
    )
    held_deliveries: int | None = Field(
        description="Number of held deliveries. Null after an upgrade, until the server has counted them."
    )
    oldest_due_at: Timestamp | None = Field(description="When the oldest due delivery became due.")
    failing: list[FailingCauseView] = Field(
        description="Endpoints that are failing, or that the server disabled for failing, grouped by cause. The cause"
        " with the most endpoints is first."
    )
    mass_failure: bool = Field(description="Whether many endpoints began to fail at once.")


def fleet_view(state: OverviewState) -> FleetView:
    """Return the API model of the state of the server and all endpoints."""
    return FleetView(
        status=state.severity.value,
        read_at=format_optional_timestamp(state.read_at),
        problems=[_problem_view(each) for each in state.problems],
        endpoints=dict(state.endpoints),
        pending_deliveries=state.backlog.pending,
        held_deliveries=state.backlog.held,
        oldest_due_at=format_optional_timestamp(state.backlog.oldest_due_at),
        failing=[_cause_view(each) for each in state.fleet.causes],
        mass_failure=state.fleet.mass_failure,
    )


def _problem_view(problem: FleetProblem) -> FleetProblemView:
    return FleetProblemView.model_validate(
        {**problem._asdict(), "severity": problem.severity.value, "since": format_optional_timestamp(problem.since)}
    )


def _cause_view(group: CauseGroup) -> FailingCauseView:
    return FailingCauseView(
        cause=group.code,
        title=group.title,
        how_to_fix=group.how_to_fix,
        endpoints=group.endpoints,
        accounts=group.accounts,
        pending_deliveries=group.pending,
        oldest_due_at=format_optional_timestamp(group.oldest_due_at),
        since=format_timestamp(group.since),
    )
