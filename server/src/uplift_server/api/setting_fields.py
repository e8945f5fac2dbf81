"""Fields of the API models that are generated from the endpoint settings."""

from collections.abc import Callable
from typing import Any, Final, TypeVar

from pydantic import BaseModel, Field, create_model

from uplift_server.core.endpoint_settings import ENDPOINT_SETTINGS, EndpointSetting

M = TypeVar("M", bound=BaseModel)
_PRECEDING: Final = "headers"
"""The name of the field that precedes the settings."""


def takes_settings(model: type[M]) -> type[M]:
    """Add the settings to a request model: optional, within their bounds, null for the default."""
    return _extended(model, lambda each: Field(default=None, ge=1, le=each.maximum, description=each.help))


def shows_settings(model: type[M]) -> type[M]:
    """Add the settings to a response model."""
    return _extended(model, lambda each: Field(description=f"{each.help} Null: {each.default}."))


def _extended(model: type[M], field: Callable[[EndpointSetting], Any]) -> type[M]:
    fields: dict[str, Any] = {}
    for name, info in model.model_fields.items():
        fields[name] = (info.annotation, info)
        if name == _PRECEDING:
            fields |= {each.name: (int | None, field(each)) for each in ENDPOINT_SETTINGS}
    [parent] = model.__bases__
    return create_model(model.__name__, __base__=parent, __doc__=model.__doc__, __module__=model.__module__, **fields)
