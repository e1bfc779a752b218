"""What a user may name for `explore --from` and `--write`: one sentence, an exit code, and nothing is changed."""

import errno
import json
import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import stamina
import yaml

from oneweb_bridge.cli.main import main
from oneweb_bridge.explore import writing
from tests.fidelity_api import HOST, Api
from tests.fidelity_runs import playing

CONFIG = f"""\
# My bridge.
api:
  base_url: {HOST}
  client_id: demo
  client_secret: demo-secret
  rate_limit: {{min_interval: 0s}}   # the API can take it
"""
ELSEWHERE = "/partyManagement/v1/organizations"
"""Where the API of these tests has its organizations, so that there is a line to write."""


@pytest.fixture(autouse=True)
def _no_waits() -> Iterator[None]:
    with stamina.set_testing(True, attempts=1, cap=True):
        yield


@pytest.fixture(autouse=True)
def _own_log() -> Iterator[None]:
    """The command sets up the log for its own output, which ends with the test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(name="config")
def _config(tmp_path: Path) -> Path:
    path = tmp_path / "configuration" / "bridge.yaml"
    path.parent.mkdir()
    path.write_text(f"{CONFIG}state: {{path: {tmp_path}/configuration/bridge.db}}\n")
    return path


@pytest.fixture(name="place")
def _place(tmp_path: Path) -> Path:
    place = tmp_path / "place"
    place.mkdir()
    return place


def state_of(place: Path) -> dict[str, Any]:
    """All files below a place: their bytes and times."""
    return {
        str(path): (path.is_symlink(), path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in sorted(place.rglob("*"))
        if path.exists()
    }


def refused(capsys: pytest.CaptureFixture[str], place: Path, *arguments: str) -> str:
    """The sentence of a command that fails by what it was given, and changes nothing."""
    before = state_of(place)
    code = main(["explore", *arguments])
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("oneweb-bridge: explore: ")
    assert err.count("\n") == 1
    assert state_of(place) == before
    return err


# ── --from ─────────────────────────────────────────────────────────────────────────────────────

RECORDING = {"version": 1, "program": "0.1.0", "now": 1_750_169_700_000, "exchanges": []}


def _whole(place: Path) -> Path:
    return place


def _file(content: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "explore.json").write_bytes(content)
        return place

    return make


def _others(place: Path) -> Path:
    (place / "user_terminals.json").write_text("[]")
    return place


def _no_folder(place: Path) -> Path:
    (place / "explore.json").write_text(json.dumps(RECORDING))
    return place / "explore.json"


def _folder_inside(place: Path) -> Path:
    (place / "explore.json").mkdir()
    return place


FOLDERS: dict[str, tuple[Callable[[Path], Path], str]] = {
    "an empty folder": (_whole, "is empty"),
    "a folder of something else": (_others, "has no explore.json"),
    "a folder that is not there": (lambda place: place / "nothing", "No such file"),
    "a file in place of a folder": (_no_folder, "cannot be read: Not a directory"),
    "a folder in place of the file": (_folder_inside, "is a folder"),
    "a name with a NUL": (lambda place: place / "a\0b", "not a file name"),
    "an empty file": (_file(b""), "cut off"),
    "a file that is cut": (_file(json.dumps(RECORDING)[:60].encode()), "cut off"),
    "a file of another version": (_file(json.dumps({**RECORDING, "version": 2}).encode()), "another version"),
    "a version that is no number": (_file(json.dumps({**RECORDING, "version": "1"}).encode()), "cut off"),
    "no recording": (_file(b"[]"), "cut off or is no recording"),
    "exchanges of other types": (_file(json.dumps({**RECORDING, "exchanges": [{"method": 1}]}).encode()), "cut off"),
    "nothing that is JSON": (_file(b"\xff\xfe\x00"), "cut off"),
    "JSON without an end": (_file(b"[" * 100_000), "cut off"),
}


@pytest.mark.parametrize("case", FOLDERS)
def test_a_folder_that_is_no_recording_is_one_sentence(
    case: str, config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is wrong, and that `explore --save` writes such folders; nothing is asked and nothing is written."""
    make, says = FOLDERS[case]
    err = refused(capsys, place, "-c", str(config), "--from", str(make(place)))
    assert says in err
    assert "save it again" in err or "explore --save" in err


def test_a_folder_that_may_not_be_read_is_one_sentence(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _file(b"{}")(place)
    read = Path.read_bytes

    def forbidden(path: Path) -> bytes:
        if path.name == "explore.json":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return read(path)

    before = state_of(place)
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    assert main(["explore", "-c", str(config), "--from", str(place)]) == 2
    out, err = capsys.readouterr()
    monkeypatch.undo()
    assert (out, err.count("\n"), state_of(place)) == ("", 1, before)
    assert "explore.json cannot be read: Permission denied" in err


# ── --write ────────────────────────────────────────────────────────────────────────────────────


def _written(content: bytes) -> Callable[[Path], Path]:
    def make(place: Path) -> Path:
        (place / "mine.yaml").write_bytes(content)
        return place / "mine.yaml"

    return make


def _dangling(place: Path) -> Path:
    (place / "link.yaml").symlink_to(place / "nothing.yaml")
    return place / "link.yaml"


def _loop(place: Path) -> Path:
    (place / "link.yaml").symlink_to(place / "link.yaml")
    return place / "link.yaml"


FILES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no YAML": (_written(b"a: [1"), "no YAML that can be changed"),
    "a tab for a space": (_written(b"polling:\n\tsites: {}\n"), "no YAML that can be changed"),
    "several documents": (_written(b"instance: a\n---\ninstance: b\n"), "no YAML that can be changed"),
    "a key that comes twice": (_written(b"instance: a\ninstance: b\n"), "no YAML that can be changed"),
    "a list": (_written(b"- 1\n- 2\n"), "no YAML of keys with values"),
    "a text": (_written(b"just words\n"), "no YAML of keys with values"),
    "bytes that are no text": (_written(b"\xff\xfe"), "no YAML file in UTF-8"),
    "anchors": (_written(b"polling: {sites: &s {interval: 1h}, products: *s}\n"), "has anchors"),
    "a merged key": (_written(b"x: &x {interval: 1h}\npolling: {sites: {<<: *x}}\n"), "has anchors"),
    "a file that is not there": (lambda place: place / "nothing.yaml", "cannot be read: No such file"),
    "a folder": (_whole, "cannot be read: Is a directory"),
    "a link that leads nowhere": (_dangling, "cannot be read: No such file"),
    "a link to itself": (_loop, "cannot be read: Too many levels of symbolic links"),
    "a name with a NUL": (lambda place: place / "a\0b", "not a file name"),
}


@pytest.mark.parametrize("case", FILES)
def test_a_file_that_cannot_be_changed_is_one_sentence(
    case: str, config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is known before anything is asked: the API of this configuration does not exist."""
    make, says = FILES[case]
    err = refused(capsys, place, "-c", str(config), "--write", str(make(place)))
    assert says in err
    assert "nothing was changed" in err


def test_a_file_that_may_not_be_written_is_one_sentence(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the folder counts: the file is replaced as a whole."""
    file = _written(b"instance: a\n")(place)
    for forbidden in (file, place):
        monkeypatch.setattr(writing.os, "access", lambda path, _, no=forbidden: path != no)  # type: ignore[attr-defined]
        err = refused(capsys, place, "-c", str(config), "--write", str(file))
        assert "is not writable; nothing was changed" in err


def explored(config: Path, *arguments: str) -> int:
    """The command against an API whose organizations are elsewhere."""
    api = Api()
    api.paths["organizations"] = ELSEWHERE
    with playing(api):
        return main(["explore", "-c", str(config), *arguments])


def test_a_disk_that_takes_nothing_is_one_sentence(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is as it was, and no half of one is left behind."""
    file, before = _written(b"instance: a\n")(place), None

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = state_of(place)
    monkeypatch.setattr(writing.os, "fsync", full)  # type: ignore[attr-defined]
    assert explored(config, "--write", str(file)) == 2
    assert capsys.readouterr().err == (
        f"oneweb-bridge: explore: {file} cannot be written: No space left on device; nothing was changed\n"
    )
    assert state_of(place) == before


def test_a_list_where_keys_are_expected_is_one_sentence(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _written(b"polling: [sites]\n")(place)
    before = state_of(place)
    assert explored(config, "--write", str(file)) == 2
    assert capsys.readouterr().err.endswith(
        "has a list at 'polling', where keys with values are expected; nothing was changed\n"
    )
    assert state_of(place) == before


CHANGED: dict[str, tuple[bytes, bytes]] = {
    "an empty file": (b"", b""),
    "comments alone": (b"# mine\n", b"# mine\n"),
    "no end of the last line": (b"instance: a", b"instance: a\n"),
    "null for polling": (b"polling: null\ninstance: a\n", b"instance: a\n"),
    "nothing below polling": (b"polling:   # mine\ninstance: a\n", b"instance: a\n"),
    "keys on one line": (b"polling: {sites: {interval: 1h}}   # mine\ninstance: a\n", b"instance: a\n"),
    "a line above": (b"---\ninstance: a   # mine\n", b"---\ninstance: a   # mine\n"),
    "ends of lines as on Windows": (
        b"# mine\r\ninstance: a\r\npolling:\r\n  sites: {interval: 1h}   # x\r\n",
        b"# mine\r\ninstance: a\r\npolling:\r\n",
    ),
    "a byte order mark": (b"\xef\xbb\xbf# mine\ninstance: a\n", b"\xef\xbb\xbf# mine\ninstance: a\n"),
}
"""Content before, and lines that must be in what is after it."""


@pytest.mark.parametrize("case", CHANGED)
def test_a_file_of_an_unusual_form_keeps_it(
    case: str, config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The lines are in it, all others are as they were, and a copy of what it was is beside it."""
    before, kept = CHANGED[case]
    file = _written(before)(place)
    assert explored(config, "--write", str(file)) == 0, capsys.readouterr().out
    after = file.read_bytes()
    assert yaml.safe_load(after)["polling"]["organizations"] == {"path": ELSEWHERE}
    assert set(kept.splitlines(keepends=True)) <= set(after.splitlines(keepends=True))
    assert after.startswith(before[:3]) or not before.startswith(b"\xef\xbb\xbf")
    assert (b"\r\n" in before) == (b"\r\n" in after)
    assert after.count(b"\r\n") in (0, after.count(b"\n"))
    assert (place / "mine.yaml.before-explore").read_bytes() == before
    if case == "keys on one line":
        assert yaml.safe_load(after)["polling"]["sites"] == {"interval": "1h"}


def test_a_link_stays_one_and_what_it_leads_to_is_changed(
    config: Path, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = _written(b"instance: a\n")(place)
    (place / "other").mkdir()
    link = place / "other" / "link.yaml"
    link.symlink_to(file)
    assert explored(config, "--write", str(link)) == 0
    assert link.is_symlink()
    assert yaml.safe_load(file.read_bytes())["polling"]["organizations"] == {"path": ELSEWHERE}
    assert (place / "mine.yaml.before-explore").read_bytes() == b"instance: a\n"
    assert f"what it was is in {file}.before-explore" in " ".join(capsys.readouterr().out.split())
