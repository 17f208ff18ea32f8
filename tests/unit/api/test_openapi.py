"""Declarations become an OpenAPI document."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from signet.api.openapi import openapi
from signet.api.operations import Content, Operation, Parameter, Public, Secured
from signet.core.tenant import Principal, Scope

CONNECTION = {"400", "408", "431", "503"}
"""What the door may answer to any request."""


async def _public(_request: Request) -> Response:
    return Response()


async def _secured(_request: Request, _principal: Principal) -> Response:
    return Response()


def _described(operation: Operation) -> dict[str, object]:
    document = openapi([operation], "1.2.3")
    (path,) = document["paths"].values()  # type: ignore[attr-defined]
    (described,) = path.values()
    return described


def test_a_public_operation() -> None:
    """It needs no key and can still fail."""
    described = _described(
        Public(
            method="GET",
            path="/a",
            name="a",
            summary="A.",
            endpoint=_public,
            answers={200: Content(doc="Yes.", headers={"X-A": "An a."})},
            problems=("not_found",),
        )
    )
    assert described["operationId"] == "a"
    assert "security" not in described
    assert "parameters" not in described
    assert "requestBody" not in described
    responses = described["responses"]
    assert set(responses) == {"200", "404", "500"} | CONNECTION  # type: ignore[call-overload]
    assert responses["200"]["headers"]["X-A"]["description"] == "An a."  # type: ignore[index]


def test_a_secured_operation() -> None:
    """It documents what every secured operation can answer, its parameters and its body."""
    described = _described(
        Secured(
            method="POST",
            path="/a/{b:path}",
            name="a",
            summary="A.",
            endpoint=_secured,
            scope=Scope.EXCHANGE,
            parameters=(Parameter(name="b", place="path", doc="B.", schema={}, required=True),),
            body={"type": "object"},
            answers={
                200: Content(doc="Yes.", links={"next": {"b": "$response.body#/b"}}),
            },
            problems=("not_acknowledged", "overloaded"),
        )
    )
    assert described["security"] == [{"apiKey": ["exchange"]}, {"bearer": ["exchange"]}]
    responses = described["responses"]
    assert set(responses) == {"200", "401", "403", "429", "500", "503"} | CONNECTION  # type: ignore[call-overload]
    assert responses["503"]["description"] == (  # type: ignore[index]
        "`not_acknowledged`: Not acknowledged; `overloaded`: The gateway is at its limit;"
        " `limits_unavailable`: The limits cannot be checked;"
        " `too_many_connections`: All connections are in use;"
        " `deadline_exceeded`: The answer is not there in time"
    )
    assert responses["200"]["links"]["next"] == {  # type: ignore[index]
        "operationId": "next",
        "parameters": {"b": "$response.body#/b"},
    }
    assert described["requestBody"]["required"] is True  # type: ignore[index]
    assert list(openapi([], "1")["paths"]) == []  # type: ignore[call-overload]


def test_paths_are_written_without_convertors() -> None:
    """The router's `{b:path}` is OpenAPI's `{b}`, and methods of a path stand together."""
    operations = [
        Public(
            method=method,
            path="/a/{b:path}",
            name=method,
            summary="",
            endpoint=_public,
            answers={},
        )
        for method in ("GET", "PUT")
    ]
    assert {path: set(found) for path, found in openapi(operations, "1")["paths"].items()} == {  # type: ignore[attr-defined]
        "/a/{b}": {"get", "put"}
    }
