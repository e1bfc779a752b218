"""The files of the console's page, without a browser: what they may not do, and what they may weigh."""

import gzip
import re
from pathlib import Path

import pytest

STATIC = Path(__file__).parent.parent / "oneweb_bridge/web/static"
OWN = sorted(path for path in STATIC.iterdir() if path.is_file())
MODULES = [path for path in OWN if path.suffix == ".js"]
MAX_LINES = 300
MAX_OWN_BYTES = 40_000
MAX_VENDORED_BYTES = 40_000


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_file_makes_nothing_from_text(path: Path) -> None:
    """No markup and no code comes from a string, no style from an attribute that the policy refuses, nothing from
    another host: what the API says is text, whatever it is.
    """
    forbidden = r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySet|document\.write|\beval\(|new Function|DOMParser"
    text = path.read_text(encoding="utf-8")
    assert not re.search(forbidden, text)
    assert not re.search(r"\bon\w+=\"|\sstyle=\"", text)
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_module_is_short_and_imports_what_is_there(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= MAX_LINES
    for name in re.findall(r'(?:from|import)\s*\(?"(\./[^"]+)"', text):
        assert (STATIC / name).is_file(), f"{path.name} imports {name}"


def test_first_page_is_light() -> None:
    """The page, its styles, and every module that the first page imports at once: 40 kB compressed, and 40 kB of
    what others wrote.
    """
    page = (STATIC / "index.html").read_text(encoding="utf-8")
    names = {"index.html", *re.findall(r'static/([\w./-]+)"', page)}
    waiting = list(names)
    while waiting:
        path = STATIC / waiting.pop()
        for name in re.findall(r'^(?:import|export) .*?"\./([^"]+)"', path.read_text(encoding="utf-8"), re.MULTILINE):
            if name not in names:
                names.add(name)
                waiting.append(name)
    weights = {name: len(gzip.compress((STATIC / name).read_bytes(), 9, mtime=0)) for name in names}
    vendored = sum(weight for name, weight in weights.items() if name.startswith("vendor/"))
    assert "fleet.js" in names
    assert sum(weights.values()) - vendored <= MAX_OWN_BYTES
    assert vendored <= MAX_VENDORED_BYTES
