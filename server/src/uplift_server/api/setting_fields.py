"""Fields of API models, generated from the endpoint settings."""

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal, TypeVar

from pydantic import BaseModel, Field, create_model

from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS, EndpointSetting
from uplift_server.core.setting_values import Choice, Durations, ValueType, WholeNumber

M = TypeVar("M", bound=BaseModel)
_PRECEDING: Final = "headers"
"""Name of the model field that precedes the endpoint settings."""


def takes_settings(model: type[M]) -> type[M]:
    """Add the endpoint settings to a request model as optional fields. Null means the default.

    The model does not check the bounds of durations; `core/endpoint_settings.py` checks them.
    """
    return _extended(
        model,
        lambda each: (
            _type(each.type) | None,
            Field(default=None, description=f"{each.help} Allowed: {each.type.bounds}. Default: {each.default}."),
        ),
    )


def shows_settings(model: type[M]) -> type[M]:
    """Add the endpoint settings to a response model."""

    def shown(each: EndpointSetting) -> tuple[Any, Any]:
        if each.initial is not None:
            return _type(each.type), Field(description=each.help)
        return _type(each.type) | None, Field(description=f"{each.help} Null: {each.default}.")

    return _extended(model, shown)


def _type(value_type: ValueType) -> Any:
    match value_type:
        case WholeNumber():
            return Annotated[int, Field(ge=1, le=value_type.maximum)]
        case Choice():
            return Literal[value_type.names]
        case Durations():
            return Annotated[list[str], Field(max_length=value_type.count_max)]
        case _:
            return str


def _extended(model: type[M], field: Callable[[EndpointSetting], tuple[Any, Any]]) -> type[M]:
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        fields[name] = (info.annotation, info)
        if name == _PRECEDING:
            fields |= {each.name: field(each) for each in ENDPOINT_SETTINGS}
    [parent] = model.__bases__
    return create_model(model.__name__, __base__=parent, __doc__=model.__doc__, __module__=model.__module__, **fields)
