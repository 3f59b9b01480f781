"""Binds a request to the parameters of a route's function.

A binding is created once, at import, and used for each request. A parameter is a name in the path, a `Body`, or a
`Query`. A body or a query parameter has a pydantic adapter. Parameters with the same annotation share an adapter.
"""

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, TypeAdapter, ValidationError

from countermark.api import wire
from countermark.errors import CountermarkError


class InvalidRequest(CountermarkError):
    """A request fails validation. Each of `errors` has its location, a message and a type."""

    http_status = 422

    def __init__(self, errors: Sequence["FieldError"]) -> None:
        super().__init__("the request fails validation")
        self.errors = errors


class UnsupportedBody(CountermarkError):
    """The route accepts JSON, but the Content-Type of the request is another type."""

    http_status = 415


@dataclass(frozen=True, slots=True, kw_only=True)
class FieldError:
    """One error in a request. Its message and type are those of pydantic."""

    loc: tuple[str | int, ...]
    msg: str
    type: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Query:
    """Marks a parameter of the query string. `ge` and `le` are the lower and upper bound of a number."""

    description: str
    examples: Sequence[Any] = ()
    ge: int | None = None
    le: int | None = None


class Body:
    """Marks the parameter that is the JSON body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A parameter of a route's function, with the adapter that validates it."""

    name: str
    adapter: TypeAdapter[Any]

    def validate(self, value: Any, loc: tuple[str, ...], errors: list[FieldError]) -> Any:
        """Validate a value, and return it as pydantic converts it.

        If the value is invalid, add its errors to `errors` and return None.
        """
        try:
            return self.adapter.validate_python(value, from_attributes=True)
        except ValidationError as error:
            errors += (
                FieldError(loc=(*loc, *each["loc"]), msg=each["msg"], type=each["type"])
                for each in error.errors(include_url=False, include_context=False, include_input=False)
            )
            return None


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryParameter(Parameter):
    """A parameter of the query string. It is required unless it has a default."""

    query: Query
    default: Any

    @property
    def is_required(self) -> bool:
        return self.default is inspect.Parameter.empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """The parameters of a function, grouped by their source: path, query or body."""

    path: Sequence[str]
    query: Sequence[QueryParameter]
    body: Parameter | None

    def arguments(
        self, names: Mapping[str, str], query: Mapping[str, str], *, content_type: str, body: bytes
    ) -> dict[str, Any]:
        """Return the arguments for the function, by parameter name.

        Raises:
            InvalidRequest: An argument is missing or invalid.
            UnsupportedBody: The route accepts JSON, but the Content-Type of the request is another type.
            InvalidInput: The body is not JSON.
        """
        arguments: dict[str, Any] = {name: names[name] for name in self.path}
        errors: list[FieldError] = []
        for parameter in self.query:
            value = query.get(parameter.name)
            if value is not None:
                arguments[parameter.name] = parameter.validate(value, ("query", parameter.name), errors)
            elif parameter.is_required:
                errors.append(_missing("query", parameter.name))
            else:
                arguments[parameter.name] = parameter.default
        if self.body is not None:
            value = _json(content_type, body)
            if value is None:
                errors.append(_missing("body"))
            else:
                # Use only the first element of a non-empty list, for compatibility with Powertools.
                first = value[0] if isinstance(value, list) and value else value
                arguments[self.body.name] = self.body.validate(first, ("body",), errors)
        if errors:
            raise InvalidRequest(errors)
        return arguments


def binding_of(function: Callable[..., Any], path_names: Sequence[str]) -> Binding:
    """Return the binding of a route's function. The first parameter of the function is the `Call`: it is not bound."""
    _, *parameters = inspect.signature(function).parameters.values()
    query: list[QueryParameter] = []
    body: Parameter | None = None
    for parameter in parameters:
        if parameter.name in path_names:
            continue
        kind, *metadata, marker = typing.get_args(parameter.annotation)
        annotation = typing.Annotated[kind, *metadata] if metadata else kind
        if isinstance(marker, Body):
            body = Parameter(name=parameter.name, adapter=_adapter(annotation))
        else:
            adapter = _adapter(annotation, ge=marker.ge, le=marker.le)
            query.append(QueryParameter(name=parameter.name, adapter=adapter, query=marker, default=parameter.default))
    return Binding(path=tuple(path_names), query=tuple(query), body=body)


@functools.cache
def _adapter(annotation: Any, *, ge: int | None = None, le: int | None = None) -> TypeAdapter[Any]:
    bounded: Any = annotation if ge is le is None else typing.Annotated[annotation, Field(ge=ge, le=le)]
    return TypeAdapter(bounded)


def _json(content_type: str, body: bytes) -> Any:
    """Return the value of a JSON body, or None if the request has no body."""
    if not wire.is_json(content_type):
        raise UnsupportedBody("Unsupported content type: the body must be application/json")
    return wire.load(body.decode("utf-8")) if body else None


def _missing(*loc: str) -> FieldError:
    return FieldError(loc=loc, msg="Field required", type="missing")
