"""Sign-in and quota: what a gateway checks before it looks at the path."""

import base64
import binascii
import hmac
import time
from urllib.parse import parse_qs

from .answer import Answer, Refused, SimulatedRequest
from .draws import mix
from .options import Options

TOKEN_PATH = "/oauth2/token"  # noqa: S105  # a path

_CHALLENGES = {
    "basic": 'Basic realm="mule-realm"',
    "headers": "Client-ID-Enforcement",
    "oauth2": 'Bearer realm="OAuth2 Client Realm"',
}


class Gate:
    """Knows the one client, and the tokens it was given."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._tokens: dict[str, float] = {}

    def check(self, request: SimulatedRequest) -> None:
        """Refused with 401 unless the request carries the right credentials in the right style."""
        if self._options.auth == "oauth2":
            self._check_token(request)
            return
        given = _basic(request) if self._options.auth == "basic" else _two_headers(request)
        if given is None:
            raise self._refused("Client ID is not present")
        if not self._is_client(*given):
            raise self._refused("Invalid client id or secret")

    def grant(self, request: SimulatedRequest) -> Answer:
        """The answer of the token endpoint, for credentials in a Basic header or in the form."""
        form = {name: values[0] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        given = _basic(request) or (form.get("client_id", ""), form.get("client_secret", ""))
        if not self._is_client(*given):
            raise Refused(401, {"error": "invalid_client"}, {"WWW-Authenticate": _CHALLENGES["basic"]})
        if form.get("grant_type") != "client_credentials":
            raise Refused(400, {"error": "unsupported_grant_type"})
        now = time.monotonic()
        self._tokens = {token: end for token, end in self._tokens.items() if end > now}
        token = f"{mix(id(self), time.perf_counter_ns()):016x}{len(self._tokens):04x}"
        self._tokens[token] = now + self._options.token_ttl
        seconds = int(self._options.token_ttl)
        return Answer(200, {"access_token": token, "token_type": "Bearer", "expires_in": seconds})

    def expire_tokens(self) -> None:
        """No token that was granted is good any more."""
        self._tokens.clear()

    def _check_token(self, request: SimulatedRequest) -> None:
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer":
            raise self._refused("Client ID is not present")
        if self._tokens.get(token, 0) <= time.monotonic():
            raise self._refused("Invalid or expired token")

    def _is_client(self, client_id: str, secret: str) -> bool:
        same_id = hmac.compare_digest(client_id.encode(), self._options.client_id.encode())
        return hmac.compare_digest(secret.encode(), self._options.client_secret.encode()) and same_id

    def _refused(self, sentence: str) -> Refused:
        return Refused(401, {"error": sentence}, {"WWW-Authenticate": _CHALLENGES[self._options.auth]})


class Quota:
    """Requests per fixed window of real seconds."""

    def __init__(self, limit: int | None, window: float) -> None:
        self._limit = limit
        self._window = window
        self._ends = 0.0
        self._used = 0

    def spend(self) -> dict[str, str]:
        """The rate headers of this request. Refused with 429 when the window's requests are used up."""
        if self._limit is None:
            return {}
        now = time.monotonic()
        if now >= self._ends:
            self._ends, self._used = now + self._window, 0
        self._used += 1
        headers = {
            "x-ratelimit-limit": str(self._limit),
            "x-ratelimit-remaining": str(max(0, self._limit - self._used)),
            "x-ratelimit-reset": str(int((self._ends - now) * 1000)),
        }
        if self._used > self._limit:
            raise Refused(429, {"error": "Quota has been exceeded"}, headers)
        return headers


def _basic(request: SimulatedRequest) -> tuple[str, str] | None:
    scheme, _, encoded = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        client_id, _, secret = base64.b64decode(encoded, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return client_id, secret


def _two_headers(request: SimulatedRequest) -> tuple[str, str] | None:
    client_id = request.headers.get("client_id")
    return None if client_id is None else (client_id, request.headers.get("client_secret", ""))
