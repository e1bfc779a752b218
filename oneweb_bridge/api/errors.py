"""Why the API gave no usable answer, split by what happens next.

ApiError
├── Unauthorized   stop this call and alert
├── RateLimited    leave the whole host alone for `pause` seconds
├── Unavailable    back off and try again, not sooner than in `pause` seconds
└── BadAnswer      the same, and keep the beginning of the answer for the operator
└── NotFound   the API does not know this path, or this id
"""

MAX_EXCERPT_BYTES = 65536
"""Bytes of a bad answer that an error carries."""


class ApiError(Exception):
    """Why the API could not be asked, in a sentence that names the address without its query."""

    status: int | None = None
    """The status of the answer, where there was one."""


class Unauthorized(ApiError):
    """The credentials are not accepted, or not for this call."""


class RateLimited(ApiError):
    """The API asks to be left alone for `pause` seconds."""

    def __init__(self, message: str, pause: float) -> None:
        super().__init__(message)
        self.pause = pause


class Unavailable(ApiError):
    """The API cannot be reached, or says that it cannot answer now; with a `pause` it was not even asked."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class BadAnswer(ApiError):
    """The API answered something else than what was requested; `excerpt` is the beginning of it."""

    def __init__(self, message: str, excerpt: bytes = b"") -> None:
        super().__init__(message)
        self.excerpt = excerpt[:MAX_EXCERPT_BYTES]


class NotFound(BadAnswer):
    """The API does not know the path, or nothing of the id in it."""
