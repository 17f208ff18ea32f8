"""The OpenAPI 3.1 document, made of the same declarations as the routes."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final

from signet.api import schemas
from signet.api.operations import Content, Operation, Secured
from signet.api.problems import MEDIA_TYPE, PROBLEMS

Document = dict[str, object]

_OF_CONNECTION: Final = (
    *("http_malformed", "request_timeout", "headers_too_large"),
    *("too_many_connections", "deadline_exceeded"),
)
_OF_SECURED: Final = (
    *("unauthenticated", "scope_missing"),
    *("rate_limited", "concurrency_limited", "limits_unavailable"),
)


def openapi(operations: Iterable[Operation], version: str) -> Document:
    """Return the document that describes `operations`."""
    paths: defaultdict[str, Document] = defaultdict(dict)
    for operation in operations:
        path = re.sub(r":\w+}", "}", operation.path)
        paths[path][operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Signet Protocol",
            "version": version,
            "summary": "A trust gateway between AI agents and the services they act on.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": dict(paths),
        "components": {
            "schemas": schemas.COMPONENTS,
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-SIGNET-API-Key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


def _operation(operation: Operation) -> Document:
    described: Document = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": _responses(operation),
    }
    if operation.parameters:
        described["parameters"] = [
            {
                "name": parameter.name,
                "in": parameter.place,
                "required": parameter.required,
                "description": parameter.doc,
                "schema": parameter.schema,
            }
            for parameter in operation.parameters
        ]
    if operation.body is not None:
        content = {"application/json": {"schema": operation.body}}
        described["requestBody"] = {"required": True, "content": content}
    if isinstance(operation, Secured):
        # The scope stands as the role that is required (OpenAPI 3.1 §4.8.30).
        scopes = [operation.scope.value]
        described["security"] = [{"apiKey": scopes}, {"bearer": scopes}]
    return described


def _responses(operation: Operation) -> dict[str, Document]:
    responses: dict[str, Document] = {
        str(status): _success(answer) for status, answer in operation.answers.items()
    }
    codes: defaultdict[int, list[str]] = defaultdict(list)
    secured = _OF_SECURED if isinstance(operation, Secured) else ()
    for code in (*operation.problems, *secured, *_OF_CONNECTION, "internal_error"):
        codes[PROBLEMS[code].status].append(code)
    for status, names in sorted(codes.items()):
        shape = {"schema": {"$ref": "#/components/schemas/Problem"}}
        described = "; ".join(f"`{name}`: {PROBLEMS[name].title}" for name in names)
        responses[str(status)] = {"description": described, "content": {MEDIA_TYPE: shape}}
        if status == 429:
            responses["429"] |= {"headers": _headers(schemas.LIMIT_HEADERS)}
    return responses


def _success(answer: Content) -> Document:
    content: Document = {answer.media_type: {}, **{kind: {} for kind in answer.also}}
    if answer.schema is not None:
        content[answer.media_type] = {"schema": answer.schema}
    described: Document = {"description": answer.doc, "content": content}
    if answer.headers:
        described["headers"] = _headers(answer.headers)
    if answer.links:
        described["links"] = {
            name: {"operationId": name, "parameters": parameters}
            for name, parameters in answer.links.items()
        }
    return described


def _headers(headers: Mapping[str, str]) -> Document:
    return {
        name: {"description": doc, "schema": {"type": "string"}} for name, doc in headers.items()
    }
