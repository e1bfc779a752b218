"""The files of the page, ready to be sent: bytes, gzip, versions in their addresses, and the import map. Pure.

No name of a file is written twice: what `index.html` refers to, and what modules import from one another, gets
`?v=` and the hash of the file, so that a browser keeps it for ever and still has the new one after an upgrade.
"""

import base64
import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping

import msgspec

TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".ico": "image/x-icon",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".png": "image/png",
    ".svg": "image/svg+xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".webmanifest": "application/manifest+json",
    ".woff2": "font/woff2",
}
"""Endings of the files that are served. Others, like licences, only lie beside them."""
PAGE = "index.html"
_MODULES = (".js", ".mjs")
_REFERENCE = re.compile(r'(?<=["\'])((?:\./)?static/([\w./-]+))(?=["\'])')
_ENTRY = re.compile(r'<script type="module" src="static/([\w./-]+)"[^>]*></script>')
_IMPORT = re.compile(r"""(?:^|[;\n])\s*(?:import|export)\b[^"'();]*?["']([^"']+)["']""")
_IMPORT_MAP = re.compile(r'(<script type="importmap">)(.*?)(</script>)', re.DOTALL)


class StaticFile(msgspec.Struct, frozen=True):
    """One file: its bytes, plain and compressed, its media type, and a version that changes with its bytes."""

    body: bytes
    compressed: bytes
    type: str
    version: str

    @property
    def etag(self) -> str:
        """Weak, because the plain and the compressed form have the same one. Source: RFC 9110, 8.8.1."""
        return f'W/"{self.version}"'


class Page(msgspec.Struct, frozen=True):
    """The page, and the hash of its one inline script, which the Content-Security-Policy names."""

    file: StaticFile
    script_hash: str | None


def prepare_file(name: str, body: bytes) -> StaticFile:
    """A file as it is sent. Raises KeyError for an ending that is not served."""
    version = hashlib.sha256(body).hexdigest()[:16]
    return StaticFile(body, gzip.compress(body, 9, mtime=0), TYPES[_ending(name)], version)


def prepare_files(files: Mapping[str, bytes]) -> dict[str, StaticFile]:
    """Those of the files, by their names below `static/`, that are served."""
    return {name: prepare_file(name, body) for name, body in files.items() if _ending(name) in TYPES and name != PAGE}


def prepare_page(template: bytes, files: Mapping[str, StaticFile]) -> Page:
    """The page with versions in all addresses, and with an import map that has every module."""
    text = _REFERENCE.sub(lambda match: _versioned(match[1], match[2], files), template.decode())
    # Behind the style sheets: a slow CPU draws first, and then reads modules.
    preloads = "".join(
        f'\n<link rel="modulepreload" href="{_versioned(f"static/{name}", name, files)}" fetchpriority="low">'
        for name in _first_modules(template.decode(), files)
    )
    text = _IMPORT_MAP.sub(lambda match: f"{match[1]}{_import_map(match[2], files)}{match[3]}{preloads}", text)
    script = _IMPORT_MAP.search(text)
    script_hash = None
    if script is not None:
        script_hash = base64.b64encode(hashlib.sha256(script[2].encode()).digest()).decode()
    return Page(prepare_file(PAGE, text.encode()), script_hash)


def _first_modules(template: str, files: Mapping[str, StaticFile]) -> list[str]:
    """What the page's module imports, and what that imports, and so on: asked for at once and not step by step."""
    entry, named = _ENTRY.search(template), _IMPORT_MAP.search(template)
    names = {} if named is None else _named_addresses(named[2])
    modules: list[str] = []
    waiting = [] if entry is None else [entry[1]]
    while waiting:
        name = waiting.pop(0)
        if name in modules or name not in files:
            continue
        modules.append(name)
        for address in _IMPORT.findall(files[name].body.decode()):
            path = names.get(address, posixpath.join("./static", posixpath.dirname(name), address))
            waiting.append(posixpath.normpath(path).removeprefix("static/"))
    return modules[1:]


def _named_addresses(import_map: str) -> dict[str, str]:
    """Name -> address, as the template's import map has them."""
    document: dict[str, dict[str, str]] = msgspec.json.decode(import_map.strip() or "{}")
    return document.get("imports", {})


def _import_map(template: str, files: Mapping[str, StaticFile]) -> str:
    """The template's names, and each module under its plain address, by which the others import it."""
    modules = {f"./static/{name}": f"./static/{name}" for name in sorted(files) if _ending(name) in _MODULES}
    versioned = {
        key: _versioned(address, address.removeprefix("./static/"), files)
        for key, address in (modules | _named_addresses(template)).items()
    }
    return msgspec.json.encode({"imports": versioned}).decode().replace("<", "\\u003c")


def _versioned(address: str, name: str, files: Mapping[str, StaticFile]) -> str:
    return f"{address}?v={files[name].version}" if name in files else address


def _ending(name: str) -> str:
    return f".{name.rpartition('.')[2]}"


def content_security_policy(script_hash: str | None, *, in_frame: bool) -> str:
    """The policy of every answer: nothing from other hosts, no script but the page's own, no frames but the ingress's.

    Source: CSP 3 and Trusted Types.
    """
    inline = f" 'sha256-{script_hash}'" if script_hash else ""
    return (
        f"default-src 'none'; script-src 'self'{inline}; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        f"form-action 'self'; base-uri 'none'; frame-ancestors {_ANCESTORS[in_frame]}; "
        "require-trusted-types-for 'script'; trusted-types 'none'"
    )


_ANCESTORS = {True: "'self'", False: "'none'"}
