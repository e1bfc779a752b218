"""What `explore` found is kept beside the database without secrets, and the console can read it."""

import asyncio
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from oneweb_bridge import explore
from oneweb_bridge.config.masks import Masks
from oneweb_bridge.config.read import load, parse
from oneweb_bridge.config.write import reading_hash
from oneweb_bridge.explore import keeping
from oneweb_bridge.model.exploration import Exploration
from oneweb_bridge.simulator import serve
from oneweb_bridge.store import store
from oneweb_bridge.store.errors import StoreError
from oneweb_bridge.store.exploration_file import exploration_path, read_exploration, write_exploration
from oneweb_bridge.store.query_thread import open_query_thread
from oneweb_bridge.web.data import DataRoutes
from tests import fidelity, harness
from tests.consoles import visited


async def explored(row: fidelity.Row, database: Path) -> tuple[Exploration, str]:
    """What is kept of an exploration of a row's API, and what was printed."""
    printed: list[str] = []
    async with serve(fidelity.options_of(row)) as simulator:
        await explore.explore(fidelity.config_of("", simulator.url), printed.append, database=database)
    kept = await asyncio.to_thread(read_exploration, database)
    assert kept is not None
    return kept, "\n".join(printed)


async def test_what_explore_found_is_kept_in_its_own_words(tmp_path: Path) -> None:
    """Each call with what would be published, and the conclusion that was printed; the file has the database's mode."""
    database = tmp_path / "bridge.db"
    database.touch(0o640)
    database.chmod(0o640)
    kept, printed = await explored(fidelity.Row(row="", differs=""), database)
    flat = " ".join(printed.split())
    assert kept.signed_in
    assert kept.conclusion in flat
    assert kept.changes == ""
    assert {call.outcome for call in kept.calls if call.enabled} == {"whole"}
    assert all(call.summary in flat for call in kept.calls)
    path = exploration_path(database)
    assert str(path) in printed
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_lines_to_change_are_kept(tmp_path: Path) -> None:
    """Where the API differs, the differences and the lines of bridge.yaml are kept as printed."""
    row = fidelity.Row(row="", differs="", shape={"names": "other", "envelope": "data"})
    kept, printed = await explored(row, tmp_path / "bridge.db")
    assert kept.changes
    assert all(line in printed for line in kept.changes.splitlines())
    assert any(call.differs for call in kept.calls)
    assert not kept.written


def test_secrets_are_masked() -> None:
    masks = Masks()
    masks.add_secrets("hunter2-secret")
    kept = keeping.refused("refused: the API says hunter2-secret", 0, masks)
    assert "hunter2" not in kept.sign_in
    assert not kept.signed_in


def test_no_report_is_none_and_another_file_is_a_sentence(tmp_path: Path) -> None:
    database = tmp_path / "bridge.db"
    assert read_exploration(database) is None
    exploration_path(database).write_bytes(b"\xff{")
    with pytest.raises(StoreError, match="run explore again"):
        read_exploration(database)


def test_report_is_replaced_as_a_whole(tmp_path: Path) -> None:
    """The second report takes the place of the first, and nothing else is left in the folder."""
    database = tmp_path / "bridge.db"
    for text in ("first", "second"):
        write_exploration(database, keeping.refused(text, 0, Masks()))
    kept = read_exploration(database)
    assert kept is not None
    assert kept.sign_in == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["bridge.explore.json"]


def test_folder_that_cannot_be_written_is_a_sentence(tmp_path: Path) -> None:
    text = keeping.keep(tmp_path / "missing" / "bridge.db", keeping.refused("x", 0, Masks()))
    assert text.startswith("not for the console: ")


async def test_answers_of_a_folder_are_not_kept(tmp_path: Path) -> None:
    """`explore --from` says what a folder shows, and leaves the report of this bridge's own API as it was."""
    folder, database = tmp_path / "saved", tmp_path / "bridge.db"
    async with serve(fidelity.options_of(fidelity.Row(row="", differs=""))) as simulator:
        await explore.explore(fidelity.config_of("", simulator.url), lambda _: None, save=folder)
    config = harness.bridge_yaml(tmp_path, "http://127.0.0.1:9", 1883)
    before = {path.name for path in tmp_path.iterdir()}
    code, out, err = await harness.command("explore", "--from", str(folder), "-c", str(config), cwd=tmp_path)
    assert (code in (0, 1), err) == (True, "")
    assert "12 terminals" in out
    assert "for the console" not in out
    assert {path.name for path in tmp_path.iterdir()} == before
    write_exploration(database, keeping.refused("of the own API", 0, Masks()))
    await harness.command("explore", "--from", str(folder), "-c", str(config), cwd=tmp_path)
    kept = read_exploration(database)
    assert kept is not None
    assert kept.sign_in == "of the own API"


async def test_report_that_cannot_be_read_is_answered_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The console answers null without a report, and 503 with the sentence for a file that is none."""
    database = tmp_path / "bridge.db"
    async with store.open_store(database), open_query_thread(database) as queries:
        sources: Any = SimpleNamespace(queries=queries, place=database)
        async with visited(monkeypatch, routes=lambda _: DataRoutes(sources).routes()) as visits:
            answer = await visits.ask("/api/v1/exploration")
            assert (answer.status, answer.json()) == (200, {"exploration": None})
            exploration_path(database).write_bytes(b"\xff{")
            answer = await visits.ask("/api/v1/exploration")
            assert (answer.status, "Retry-After" in answer.headers) == (503, False)
            assert "run explore again" in answer.json()["error"]
            exploration_path(database).unlink()
            exploration_path(database).mkdir()
            answer = await visits.ask("/api/v1/exploration")
            assert answer.status == 503
            assert "cannot be read" in answer.json()["error"]


async def test_report_of_another_configuration_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a path was changed, the report of before is not shown as if it were about the bridge as it is."""
    database = tmp_path / "bridge.db"
    async with store.open_store(database), open_query_thread(database) as queries:
        running = {"config": parse("", {})}
        write_exploration(database, keeping.refused("x", 0, Masks(), reading_hash(running["config"])))
        sources: Any = SimpleNamespace(queries=queries, place=database, config=lambda: running["config"])
        async with visited(monkeypatch, routes=lambda _: DataRoutes(sources).routes()) as visits:
            conclusions = []
            for lines in ("", "polling: {sites: {interval: 1h}}", "polling: {sites: {map: {name: nope}}}"):
                running["config"] = parse(lines, {})
                answer = await visits.ask("/api/v1/exploration")
                conclusions.append(answer.json()["exploration"]["conclusion"])
    assert conclusions[0] == conclusions[1] == "Not signed in, so that no call was read."
    assert conclusions[2].startswith("The bridge now has another configuration than the one that this is about")
    assert conclusions[2].endswith(conclusions[0])


async def test_written_file_is_the_configuration_of_the_report(tmp_path: Path) -> None:
    """After `--write` and a restart of the bridge the report is about the bridge as it is."""
    row = fidelity.Row(row="", differs="", shape={"envelope": "data"})
    database, file = tmp_path / "b.db", tmp_path / "b.yaml"
    async with serve(fidelity.options_of(row)) as simulator:
        file.write_text(
            f"api: {{base_url: '{simulator.url}', client_id: demo, client_secret: demo-secret}}\n"
            "polling: {sites: {map: {name: nope}}}\n"
        )
        await explore.explore(load(file, {}), lambda _: None, database=database, file=file)
    kept = await asyncio.to_thread(read_exploration, database)
    assert kept is not None
    assert kept.written
    assert kept.configuration == reading_hash(load(file, {}))
