"""The console over HTTP: the page, its files, signing in, and the guard before everything that gives data."""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Iterable, Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable

from aiohttp import web

from oneweb_bridge.clock import Clock
from oneweb_bridge.config.schema import Config
from oneweb_bridge.web import access, assets
from oneweb_bridge.web.access import Refusal, RequestFacts, Rules, Visitor
from oneweb_bridge.web.answers import BadRequest, decode_body, json_response, refuse
from oneweb_bridge.web.gate import AccessGate, Admission
from oneweb_bridge.web.payloads import SessionState, SignIn

_log = logging.getLogger("oneweb_bridge.console")
BODY_TIMEOUT_S = 30.0
"""Seconds that a client may take to send a body."""
FILES = "/static/"
IMMUTABLE = "public, max-age=31536000, immutable"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_ADMISSION = web.RequestKey("admission", Admission)
_FACTS = web.RequestKey("facts", RequestFacts)


class Console:
    """Page and session routes, and the guard of all others. `add` takes the routes that give data."""

    def __init__(self, rules: Rules, clock: Clock, version: str, instance: str) -> None:
        self.gate = AccessGate(rules)
        self.port: int | None = None
        """The port that is listened on; it differs from `http.listen` where that leaves it open."""
        self._is_announced = False
        self._clock = clock
        self._version = version
        self._instance = instance
        static = read_static_files()
        self._files = assets.prepare_files(static)
        self._page = assets.prepare_page(static[assets.PAGE], self._files) if assets.PAGE in static else None
        self._routes: list[web.RouteDef] = []

    def reconfigure(self, config: Config) -> None:
        """Takes the access rules of a configuration, and logs whether the console can be used."""
        rules = access.rules_of(config, self.port)
        if rules.off != self.gate.rules.off or not self._is_announced:
            self._is_announced = True
            if rules.off is None:
                _log.info("console: %s", access.address_of(config, self.port))
            else:
                _log.warning("%s", rules.off)
        self.gate.reconfigure(rules)

    def add(self, *routes: web.RouteDef) -> None:
        """Adds routes below /api/v1, or of the fleet's metrics; each answers signed-in visitors alone."""
        self._routes += [web.RouteDef(r.method, r.path, _signed_in_only(r.handler), r.kwargs) for r in routes]

    def routes(self) -> Iterable[web.RouteDef]:
        """All routes of the console."""
        yield web.get("/", self._send_page)
        yield web.get(f"{FILES}{{name:.+}}", self._send_file)
        yield web.get(access.SESSION, self._send_session)
        yield web.post(access.SESSION, self._sign_in)
        yield web.delete(access.SESSION, _signed_in_only(self._sign_out))
        yield from self._routes

    # ── the guard ──────────────────────────────────────────────────────────────────────────────

    @web.middleware
    async def guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets a request through to its route, or answers with its refusal. Health is open to everybody."""
        if request.path in access.HEALTH:
            return await handler(request)
        facts = facts_of(request)
        visitor = access.visitor_of(facts, self.gate.rules)
        response = await self._answer(request, facts, handler)
        if not response.prepared:
            response.headers.update(self._headers(facts, visitor))
        return response

    async def _answer(self, request: web.Request, facts: RequestFacts, handler: Handler) -> web.StreamResponse:
        wrong_before = self.gate.wrong_tokens
        is_counted = not self._asks_for_own_file(request)
        admission = self.gate.check(facts, self._clock.elapsed(), is_counted=is_counted)
        self._log_wrong_tokens(wrong_before, facts)
        if isinstance(admission, Refusal):
            return refuse(admission)
        request[_ADMISSION], request[_FACTS] = admission, facts
        try:
            if facts.has_body and access.is_data(facts.path):
                async with asyncio.timeout(BODY_TIMEOUT_S):
                    await request.read()
            refusal = access.refuse_change(facts, self.gate.rules)
            return await handler(request) if refusal is None else refuse(refusal)
        except BadRequest as error:
            return refuse(Refusal(400, str(error)))
        except TimeoutError:
            return refuse(Refusal(400, f"the body did not come within {BODY_TIMEOUT_S:.0f} s"))
        except web.HTTPException as error:
            return _refuse_as_aiohttp_does(error)

    def _asks_for_own_file(self, request: web.Request) -> bool:
        """Whether a file is asked for by the version that the page names: a page loads some thirty at once."""
        name = request.path.removeprefix(FILES)
        file = self._files.get(name) if name != request.path else None
        return file is not None and request.query.get("v") == file.version

    def is_still_signed_in(self, request: web.Request) -> bool:
        """Whether a long answer may go on: its session may have ended, or the token have changed."""
        return self.gate.is_signed_in(request[_FACTS], self._clock.elapsed())

    def headers(self, request: web.Request) -> Mapping[str, str]:
        """The headers of an answer that a route itself begins to send."""
        return self._headers(request[_FACTS], request[_ADMISSION].visitor)

    def _headers(self, facts: RequestFacts, visitor: Visitor) -> dict[str, str]:
        script_hash = None if self._page is None else self._page.script_hash
        headers = {
            "Content-Security-Policy": assets.content_security_policy(script_hash, in_frame=visitor.is_ingress),
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Permissions-Policy": "",
        }
        # Over plain HTTP in a network Chromium ignores it, and complains in the console.
        if visitor.is_secure or access.is_loopback_name(access.split_host(facts.header("host"))[0]):
            headers["Cross-Origin-Opener-Policy"] = "same-origin"
        if access.is_data(facts.path):
            headers["Cache-Control"] = "no-store"
        return headers

    def _log_wrong_tokens(self, wrong_before: int, facts: RequestFacts) -> None:
        if self.gate.wrong_tokens > wrong_before:
            _log.warning("a wrong token came from %s", access.visitor_of(facts, self.gate.rules).key)

    # ── page and files ─────────────────────────────────────────────────────────────────────────

    async def _send_page(self, request: web.Request) -> web.StreamResponse:
        if self._page is None:
            raise web.HTTPNotFound
        return _send_static(request, self._page.file)

    async def _send_file(self, request: web.Request) -> web.StreamResponse:
        file = self._files.get(request.match_info["name"])
        if file is None:
            raise web.HTTPNotFound
        return _send_static(request, file)

    # ── the session ────────────────────────────────────────────────────────────────────────────

    async def _send_session(self, request: web.Request) -> web.Response:
        return self._session(request[_ADMISSION].visitor, is_signed_in=request[_ADMISSION].is_signed_in)

    def _session(self, visitor: Visitor, *, is_signed_in: bool) -> web.Response:
        return json_response(
            SessionState(
                signed_in=is_signed_in,
                read_only=self.gate.rules.read_only,
                version=self._version if is_signed_in else None,
                instance=self._instance if is_signed_in else None,
                base=visitor.base,
            )
        )

    async def _sign_in(self, request: web.Request) -> web.Response:
        token = await decode_body(request, SignIn)
        visitor, session = request[_ADMISSION].visitor, secrets.token_urlsafe(32)
        wrong_before = self.gate.wrong_tokens
        refusal = self.gate.sign_in(token.token, session, visitor, self._clock.elapsed())
        self._log_wrong_tokens(wrong_before, request[_FACTS])
        if refusal is not None:
            return refuse(refusal)
        response = self._session(visitor, is_signed_in=True)
        self._set_cookie(response, visitor, session, round(self.gate.rules.session_s))
        return response

    async def _sign_out(self, request: web.Request) -> web.Response:
        visitor = request[_ADMISSION].visitor
        self.gate.sign_out(request[_FACTS], visitor)
        response = web.Response(status=204)
        self._set_cookie(response, visitor, "", 0)
        return response

    def _set_cookie(self, response: web.Response, visitor: Visitor, value: str, max_age: int) -> None:
        response.set_cookie(
            visitor.cookie(self.gate.rules),
            value,
            path=visitor.base,
            max_age=max_age,
            httponly=True,
            samesite="Strict",
            secure=visitor.is_secure,
        )


def _signed_in_only(handler: Handler) -> Handler:
    """A route that gives data asks for itself, so that no way of writing a path goes around the guard."""

    async def answer(request: web.Request) -> web.StreamResponse:
        if not request[_ADMISSION].is_signed_in:
            return refuse(Refusal(401, "not signed in"))
        return await handler(request)

    return answer


# ── requests and answers ───────────────────────────────────────────────────────────────────────


def facts_of(request: web.Request) -> RequestFacts:
    """What the access rules need of a request."""
    headers: dict[str, str] = {}
    for name, value in request.headers.items():
        key = name.lower()
        separator = "; " if key == "cookie" else ", "
        headers[key] = f"{headers[key]}{separator}{value}" if key in headers else value
    return RequestFacts(
        method=request.method,
        path=request.path,
        peer=request.remote or "",
        headers=headers,
        has_body=request.body_exists,
        body_bytes=request.content_length,
    )


_SENTENCES = {
    404: "there is nothing at this path: docs/console.md lists the routes",
    405: "this path does not know the method: docs/console.md lists the routes",
    413: access.body_too_large().error,
}


def _refuse_as_aiohttp_does(error: web.HTTPException) -> web.Response:
    response = refuse(Refusal(error.status, _SENTENCES.get(error.status, error.reason)))
    if isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response


def _send_static(request: web.Request, file: assets.StaticFile) -> web.Response:
    headers = {
        "ETag": file.etag,
        "Cache-Control": IMMUTABLE if request.query.get("v") == file.version else "no-cache",
        "Vary": "Accept-Encoding",
    }
    if any(etag.value in (file.version, "*") for etag in request.if_none_match or ()):
        return web.Response(status=304, headers=headers)
    body = file.body
    if "gzip" in request.headers.get("Accept-Encoding", "").casefold():
        body, headers["Content-Encoding"] = file.compressed, "gzip"
    return web.Response(body=body, headers={**headers, "Content-Type": file.type})


def read_static_files() -> dict[str, bytes]:
    """The files of `static/` by their names below it; none where there is no such folder."""
    return dict(_read_below(files("oneweb_bridge.web").joinpath("static"), ""))


def _read_below(folder: Traversable, prefix: str) -> Iterable[tuple[str, bytes]]:
    for entry in folder.iterdir() if folder.is_dir() else ():
        if entry.is_dir():
            yield from _read_below(entry, f"{prefix}{entry.name}/")
        else:
            yield f"{prefix}{entry.name}", entry.read_bytes()
