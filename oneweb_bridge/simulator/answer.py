"""A request and an answer as values, and the errors a MuleSoft gateway and its APIkit write."""

from collections.abc import Mapping
from typing import Any

import msgspec

Json = dict[str, Any]


class SimulatedRequest(msgspec.Struct, frozen=True):
    """A request. Header names are compared without case by the mapping itself."""

    method: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    url: str
    body: bytes = b""


class Answer(msgspec.Struct):
    """What goes on the wire; `items`, `offset` and `total` are told to the ledger."""

    status: int
    document: Any = None
    headers: dict[str, str] = {}
    items: list[Any] | None = None
    offset: int = 0
    total: int | None = None

    def body(self) -> bytes:
        """The JSON text."""
        return msgspec.json.encode(self.document)


class Refused(Exception):
    """The request is answered with an error."""

    def __init__(self, status: int, document: Json, headers: dict[str, str] | None = None) -> None:
        super().__init__(status)
        self.answer = Answer(status, document, headers or {})


def bad_request() -> Refused:
    """400 as APIkit says it."""
    return Refused(400, {"message": "Bad request"})


def not_found() -> Refused:
    """404 as APIkit says it."""
    return Refused(404, {"message": "Resource not found"})


def method_not_allowed() -> Refused:
    """405 as APIkit says it."""
    return Refused(405, {"message": "Method not allowed"})
