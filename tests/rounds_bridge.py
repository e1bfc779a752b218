"""Rounds in which the bridge itself is killed or stopped: at random, at named points, by signals."""

import asyncio
import contextlib
import json
import signal
import sqlite3
from pathlib import Path

from tests import harness
from tests.fault_bench import RoundResult, set_up


async def crashed_restoring(directory: Path, seed: int) -> RoundResult:
    """Kill -9 while the retained topics of a broker that forgot are restored."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        await stage.kill()
        await stage.stop_broker(kill=True)
        await stage.start_broker()
        await stage.start({"at": "restoring", "nth": stage.chance.randint(1, 60)})
        await stage.crashed("restoring")
        stage.mended()
        await stage.start()
        return await stage.finish()


async def crashed_migrating(directory: Path, seed: int) -> RoundResult:
    """Kill -9 within and after the migration of a database of the first version."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        await stage.stop()
        made_old(directory / "bridge.db")
        for point in ("migrating", "after_migration"):
            await stage.start({"at": point})
            await stage.crashed(point)
        stage.mended()
        await stage.start()
        return await stage.finish()


async def crashed_folding(point: str, directory: Path, seed: int) -> RoundResult:
    """Kill -9 while samples are folded into the trends at the start; the pass at the next start does it again."""
    async with set_up(directory, seed) as stage:
        await stage.start()
        await stage.wait_until_at_rest()
        await stage.kill()
        await stage.start({"at": point})
        await stage.crashed(point)
        stage.mended()
        await stage.start()
        return await stage.finish()


def made_old(path: Path) -> None:
    """Takes from a database what the migrations since version 1 brought."""
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(
            "DROP INDEX newest_id; DROP INDEX journal_events; DROP TABLE lane; DROP TABLE owed; DROP TABLE usage_days;"
        )
        db.executescript(
            "DROP TABLE answer_shape; DROP TABLE unmatched;"
            "DROP TABLE edge_node; DROP TABLE edge_device; ALTER TABLE record DROP COLUMN event_at;"
        )
        db.executescript(
            """DROP TABLE poll_request; DROP TABLE discovery;
            DROP INDEX record_settled; DROP INDEX record_name; DROP INDEX record_bucket;
            ALTER TABLE record RENAME COLUMN hash TO kept_hash;
            ALTER TABLE record ADD COLUMN raw_hash BLOB NOT NULL DEFAULT x'';
            ALTER TABLE newest DROP COLUMN letters; PRAGMA user_version = 1;
            ALTER TABLE call DROP COLUMN polled; ALTER TABLE call DROP COLUMN succeeded;
            ALTER TABLE call DROP COLUMN values_held;
            ALTER TABLE cursor DROP COLUMN dropped; ALTER TABLE cursor DROP COLUMN restore_from;
            DELETE FROM meta WHERE name = 'steady';"""
        )


async def crashed_removing(point: str, directory: Path, seed: int) -> RoundResult:
    """Kill -9 within and after the transaction that removes a terminal."""
    removal = {"after_missing": 1, "after_time": "0s"}
    async with set_up(directory, seed) as stage:
        stage.api.freeze()
        await stage.start(removal=removal)
        await stage.wait_until_at_rest()
        await stage.kill()
        for terminal in stage.api.truth("terminals")[:2]:
            stage.api.fleet("remove", id=terminal["id"])
        await stage.start({"at": point}, removal=removal)
        # Until then the call has to become due, and the listing to be complete.
        await stage.crashed(point, 40)
        stage.mended()
        await stage.start(removal=removal)
        return await stage.finish(removal=(1, 0.0, 5))


async def crashed_with_command(point: str, directory: Path, seed: int) -> RoundResult:
    """Kill -9 while a retained command is stored; it is obeyed once, and stays in force."""
    topic = "oneweb/bridge/polling/sites/set"
    async with set_up(directory, seed) as stage:
        await stage.start({"at": point})
        await stage.wait_until_at_rest()
        await harness.publish(stage.port, topic, json.dumps({"interval": 77, "id": "one"}), retain=True)
        await stage.crashed(point)
        stage.mended()
        await stage.start()
        state = "oneweb/bridge/polling/sites/state"
        came = await stage.until(lambda: stage.recorder.retained.get(state, {}).get("interval") == 77)
        stage.expect(came, "a retained command that was under way is not in force after the restart")
        await harness.publish(stage.port, "oneweb/bridge/polling/sites/interval/set", "55")
        await stage.until(lambda: stage.recorder.retained.get(state, {}).get("interval") == 55)
        await stage.kill()
        await stage.start()
        result = await stage.finish()
        stage.expect(stage.recorder.retained[state]["interval"] == 55, "a retained command was obeyed twice")
        return result


async def told_to_stop(directory: Path, seed: int) -> RoundResult:
    """SIGTERM while polls and messages are under way, also a second one; it says offline and ends with 0."""
    async with set_up(directory, seed, terminals=40) as stage:
        for turn in range(4):
            await stage.start()
            if turn % 2:
                await stage.until(lambda: stage.recorder.retained.get("oneweb/bridge/status") == {"state": "online"})
            await asyncio.sleep(stage.chance.uniform(0.4, 2.5))
            is_on = stage.recorder.retained.get("oneweb/bridge/status") == {"state": "online"}
            if turn == 2:
                stage.bridge.signal(signal.SIGTERM)
            if is_on or turn % 2:
                await stage.stop()
                state = await stage.until(
                    lambda: stage.recorder.retained.get("oneweb/bridge/status") == {"state": "offline"}, 5.0
                )
                stage.expect(state, "the status is not offline after SIGTERM")
            else:
                await stage.kill()
        stage.mended()
        await stage.start()
        return await stage.finish()
