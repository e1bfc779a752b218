"""The page and its files: versions in their addresses, the import map, what browsers may keep; and no secret."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import aiohttp
import pytest

from oneweb_bridge.config.masks import Masks, secrets_of
from oneweb_bridge.config.read import load
from oneweb_bridge.demo import mosquitto
from oneweb_bridge.web import assets
from oneweb_bridge.web.console import read_static_files
from tests import harness
from tests.consoles import TOKEN, visited

TEMPLATE = b"""<link href="static/app.css"><script type="importmap">
{"imports": {"preact": "./static/vendor/preact.js"}}
</script><script type="module" src="static/app.js"></script><a href="static/none.js">"""
FILES = {"app.css": b"a", "app.js": b"b", "vendor/preact.js": b"c", "vendor/LICENSE": b"d", "index.html": TEMPLATE}


def version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:16]


def test_page_names_each_file_with_its_version() -> None:
    """Addresses, bare names and imports of modules lead to the version that there is; licences are not served."""
    files = assets.prepare_files(FILES)
    assert set(files) == {"app.css", "app.js", "vendor/preact.js"}
    page = assets.prepare_page(TEMPLATE, files)
    text = page.file.body.decode()
    assert f'href="static/app.css?v={version(b"a")}"' in text
    assert f'src="static/app.js?v={version(b"b")}"' in text
    assert 'href="static/none.js"' in text
    script = re.findall(r'<script type="importmap">(.*?)</script>', text, re.DOTALL)[0]
    assert json.loads(script)["imports"] == {
        "preact": f"./static/vendor/preact.js?v={version(b'c')}",
        "./static/app.js": f"./static/app.js?v={version(b'b')}",
        "./static/vendor/preact.js": f"./static/vendor/preact.js?v={version(b'c')}",
    }
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert page.script_hash == digest
    assert f"script-src 'self' 'sha256-{digest}';" in assets.content_security_policy(digest, in_frame=False)
    assert page == assets.prepare_page(TEMPLATE, files)


def test_page_asks_at_once_for_all_modules_that_it_begins_with() -> None:
    """What is imported, and what that imports, is preloaded once, in its version; what is imported later is not."""
    modules = {
        "app.js": b'import { a } from "./a.js";\nconst later = () => import("./later.js");',
        "a.js": b'import {\n  b,\n} from "./b.js";\nexport { c } from "preact";\nimport "./none.js";',
        "b.js": b'import { a } from "./a.js";\nconst text = "import from nowhere";',
        "later.js": b'import { a } from "./a.js";',
        "vendor/preact.js": b'import{o}from"./other.js";export{o}',
        "vendor/other.js": b"export const o = 1;",
    }
    text = assets.prepare_page(TEMPLATE, assets.prepare_files(modules)).file.body.decode()
    assert re.findall(r'<link rel="modulepreload" href="static/([^"]+)" fetchpriority="low">', text) == [
        f"{name}?v={version(modules[name])}" for name in ("a.js", "b.js", "vendor/preact.js", "vendor/other.js")
    ]
    assert text.index("importmap") < text.index("modulepreload")


def test_every_shipped_file_that_the_page_needs_is_served() -> None:
    """What index.html and the import map name is there, under its version."""
    files = read_static_files()
    page = assets.prepare_page(files[assets.PAGE], assets.prepare_files(files))
    text = page.file.body.decode()
    assert page.script_hash is not None
    named = re.findall(r'"(?:\./)?static/[^"?]+(\?v=[0-9a-f]{16})?"(?!:)', text)
    assert named
    assert all(named)


def test_page_is_drawn_before_its_modules_are_read() -> None:
    """Scripts and preloads are asked for behind the style sheets, without which nothing is drawn."""
    files = read_static_files()
    text = assets.prepare_page(files[assets.PAGE], assets.prepare_files(files)).file.body.decode()
    scripts = re.findall(r'<(?:script [^>]*src|link rel="modulepreload")[^>]*>', text)
    assert len(scripts) > 10
    assert [tag for tag in scripts if 'fetchpriority="low"' not in tag] == []


async def test_browsers_keep_what_cannot_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its version a file is kept for ever, without one it is asked for again; it comes compressed where wanted."""
    files = assets.prepare_files(read_static_files())
    name, file = "app.js", files["app.js"]
    async with visited(monkeypatch) as visits:
        plain = await visits.ask(f"/static/{name}")
        assert (plain.status, plain.body) == (200, file.body)
        assert (plain.headers["Cache-Control"], plain.headers["ETag"]) == ("no-cache", file.etag)
        kept = await visits.ask(f"/static/{name}?v={file.version}", headers={"Accept-Encoding": "gzip"})
        assert "immutable" in kept.headers["Cache-Control"]
        assert (kept.headers["Content-Encoding"], kept.headers["Vary"]) == ("gzip", "Accept-Encoding")
        assert kept.body == file.body == gzip.decompress(file.compressed)
        old = await visits.ask(f"/static/{name}?v=0123456789abcdef")
        assert old.headers["Cache-Control"] == "no-cache"
        for etag, status in ((file.etag, 304), (f'"x", {file.etag}', 304), ("*", 304), ('"x"', 200)):
            answer_again = await visits.ask(f"/static/{name}", headers={"If-None-Match": etag})
            assert (answer_again.status, answer_again.body == b"") == (status, status == 304)
        page = await visits.ask("/")
        assert page.headers["Cache-Control"] == "no-cache"
        assert "sha256-" in page.headers["Content-Security-Policy"]
        for path in ("/static/../app.py", "/static/%2e%2e/app.py", "/static/vendor/LICENSE", "/static/index.html"):
            assert (await visits.ask(path)).status == 404


async def test_no_answer_has_a_secret(world: harness.World, tmp_path: Path) -> None:
    """Nothing that the console answers, to whom it may and to whom not, has a secret of the configuration in it."""
    http = mosquitto.free_port()
    secret = {"client_id": "canary-id-4711", "client_secret": "canary-word-4711"}
    config = world.config(
        http={"listen": f"127.0.0.1:{http}"},
        console={"token": TOKEN},
        api=secret,
        mqtt={"username": "canary-user-4711", "password": "canary-password-4711"},
    )
    masks, settings = Masks(), load(config, {})
    masks.add_secrets(*secrets_of(settings.api), settings.mqtt.password, settings.mqtt.username, settings.console.token)
    url = f"http://127.0.0.1:{http}"
    async with harness.running(config), aiohttp.ClientSession() as session:
        while True:
            try:
                document = await (await session.get(f"{url}/api/v1/session")).json()
                break
            except aiohttp.ClientConnectorError:
                continue
        assert document == {"signed_in": False, "read_only": False, "base": "/"}
        texts = []
        async with session.get(f"{url}/api/v1/openapi.json", headers=BEARER) as answer:
            paths = (await answer.json())["paths"]
        # The credentials are wrong: what the API says of them is in the states of the calls.
        for headers in (BEARER, {}):
            for path in ("/", *paths):
                if path.endswith("/live"):
                    continue
                async with session.get(f"{url}{path.format_map(Ids())}", headers=headers) as answer:
                    texts.append(f"{path} {dict(answer.headers)} {await answer.text()}")
                    assert answer.status != 500
                    assert headers or path == "/" or path.endswith("session") or answer.status in (401, 405)
    for text in texts:
        assert masks.mask_text(text) == text
        assert "canary" not in text


BEARER = {"Authorization": f"Bearer {TOKEN}"}


class Ids(dict[str, str]):
    """Any id for any part of a path."""

    def __missing__(self, key: str) -> str:
        return "sites" if key == "call" else "1"
