"""What `explore` says to do where the API accepts no credentials: it goes by the challenges of the answer."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from multidict import CIMultiDict

from oneweb_bridge import explore
from oneweb_bridge.config.read import parse

OAUTH2 = "The API wants a token: set api.auth.style: oauth2_client_credentials and api.auth.token_url:"
CREDENTIALS = "Check api.client_id, api.client_secret and api.auth.style"
NOWHERE = f"{OAUTH2} the address where OneWeb gives tokens"


async def advice(lines: list[str]) -> str:
    """The last sentence of an exploration of an API that refuses everybody with these WWW-Authenticate lines."""

    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401, headers=CIMultiDict(("WWW-Authenticate", line) for line in lines))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", refuse)
    async with TestServer(app) as server:
        api = f"{{base_url: '{server.make_url('')}', client_id: a, client_secret: b, rate_limit: {{min_interval: 0s}}}}"
        written: list[str] = []
        assert not await explore.explore(parse(f"api: {api}\n", {}), written.append)
    return " ".join(" ".join(written).partition("nothing is known of them. ")[2].split())


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], CREDENTIALS),
        (['Basic realm="a, b"'], f"{CREDENTIALS} (the API asks for Basic)"),
        (['Bearer realm="a", token_url="https://x.example/t?a=1,2"'], f"{OAUTH2} https://x.example/t?a=1,2"),
        (["Negotiate YWJj=", 'bearer Token_URI = "/oauth/token"'], f"{OAUTH2} /oauth/token"),
        (['DPoP algs="ES256", Bearer realm="a"'], NOWHERE),
        (['Bearer error_description="no token_url=https://evil.example here"'], NOWHERE),
        (['Bearer token_url="two words"'], NOWHERE),
        (['Bearer token_url="javascript:x"'], NOWHERE),
        (['Basic realm="a"', "Bearer"], f"{CREDENTIALS} (the API asks for Basic or Bearer)"),
    ],
)
async def test_advice_goes_by_every_challenge(lines: list[str], expected: str) -> None:
    """All header lines and all schemes in them count, and only what is an address is named as one."""
    assert await advice(lines) == expected
