"""`make mutants`: takes each guard out in turn, runs the tests that should notice, and prints which did.

A guard that nobody misses is a promise that nobody tests. The source is changed in copies of the tree, never here.
`make mutants ARGS='fence probe'` tries only those whose name has one of the words.
"""

import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import msgspec

ROOT = Path(__file__).parent.parent
WORKERS = 2
PATIENCE = 180.0
"""Seconds after which a run counts as stuck, which is noticed too."""
_LEFT = shutil.ignore_patterns(".git", ".venv", ".*_cache", "__pycache__", ".hypothesis", "build", "dist")


class Mutant(msgspec.Struct, frozen=True):
    """A guard, the text in a file of the package that is it, what stands there without it, and who should notice."""

    guard: str
    file: str
    text: str
    without: str
    tests: str


TABLE = (
    # ── a topic never goes back, nothing is lost ───────────────────────────────────────────────
    Mutant(
        "trends: nothing is trimmed before it is folded",
        "store/housekeeping.py",
        "folded = last if self._fold is None else await self._fold(last)",
        "folded = last",
        "test_trends_task.py",
    ),
    Mutant(
        "trends: a late sample makes its day pending again",
        "trends/fold.py",
        "after = max(scan.seq, head if oldest is None else oldest[0] - 1)",
        "after = head if scan.seq else 0",
        "test_trends.py",
    ),
    Mutant(
        "trends: nothing ends pending before its chunks are written",
        "trends/pending.py",
        "        with transaction(self._db):\n            self._write_chunks(day, chunks)\n",
        "        self._end_pending(day, ids)\n        with transaction(self._db):\n"
        "            self._write_chunks(day, chunks)\n",
        "test_trends.py",
    ),
    Mutant(
        "trends: a day waits until it is over",
        "trends/fold.py",
        "return (self._moment.api - SETTLE_MS) // DAY_MS",
        "return MAX_DAY",
        "test_trends.py",
    ),
    Mutant(
        "trends: the later sample of a time counts",
        "trends/chunks.py",
        "rows[ts] = _corrected(stream, rows[ts], members) if ts in rows else members",
        "rows.setdefault(ts, members)",
        "test_trends.py",
    ),
    Mutant(
        "trends: no rate at a reset",
        "trends/bins.py",
        "value >= before[1] and ",
        "",
        "test_chunks.py",
    ),
    Mutant(
        "trends: no rate over a gap",
        "trends/bins.py",
        " and not is_gap(t - before[0], period)",
        "",
        "test_chunks.py",
    ),
    Mutant(
        "trends: what is pending is read from the journal",
        "trends/reading.py",
        "(span.within(day), (first, new)) for day, first in pending",
        "(span.within(day), (first, new)) for day, first in pending[:0]",
        "test_trends.py",
    ),
    Mutant(
        "trends: a damaged file is moved away",
        "trends/fold.py",
        "        except StoreDamaged as error:\n            outcome.lost",
        "        except ZeroDivisionError as error:\n            outcome.lost",
        "test_trends.py",
    ),
    Mutant(
        "history: a text that is a formula",
        "trends/lines.py",
        "text.startswith(_FORMULA)",
        'text.startswith("\\0")',
        "test_history.py",
    ),
    Mutant(
        "fence: a topic waits for its message in flight",
        "mqtt/fence.py",
        "        queue.append(outgoing)\n",
        "        queue.append(outgoing)\n        outgoing.first_in_topic = True\n        self._make_ready(outgoing)\n",
        "test_window.py",
    ),
    Mutant(
        "fence: a topic waits for the durable cursor",
        "mqtt/lane.py",
        "while self.finished and self.finished[0].seq <= seq:",
        "while self.finished:",
        "test_window.py",
    ),
    Mutant(
        "order of the messages of a row",
        "mqtt/window.py",
        "outgoing.predecessor_sent, row.messages[-1].next_in_row = False, outgoing",
        "pass",
        "test_window.py",
    ),
    Mutant(
        "a crash repeats at most so many messages",
        "mqtt/window.py",
        ">= self._max_repeated or (",
        ">= 3 * self._max_repeated or (",
        "test_window.py -k bounded",
    ),
    Mutant(
        "cursor: a topic with a next message waits for it",
        "mqtt/fence.py",
        "        if len(self._queues[outgoing.message.topic]) > 1:\n",
        "        if False:\n",
        "test_window.py -k awaited_by",
    ),
    Mutant(
        "cursor: not where it would help nobody",
        "mqtt/fence.py",
        "o.lane is not None and o.seq <= o.lane.finished_seq",
        "o.lane is not None",
        "test_window.py -k help_nobody",
    ),
    Mutant(
        "cursor: written before the window is blocked",
        "mqtt/window.py",
        "if self._uncommitted() >= room or",
        "if",
        "test_window.py -k before_the_window",
    ),
    Mutant(
        "cursor: written in time where nobody waits",
        "mqtt/cursor.py",
        "elif self._timer is None and self._window.has_moved():",
        "elif False:",
        "test_cursor.py -k flushed_at_rest",
    ),
    Mutant(
        "cursor: flushed in time",
        "mqtt/cursor.py",
        "if is_at_rest or time.monotonic() - self._unflushed_since >= FLUSH_INTERVAL_S:",
        "if is_at_rest:",
        "test_cursor.py -k all_the_time",
    ),
    Mutant(
        "cursor: flushed at rest",
        "mqtt/cursor.py",
        "if is_at_rest or time.monotonic() - self._unflushed_since >= FLUSH_INTERVAL_S:",
        "if time.monotonic() - self._unflushed_since >= FLUSH_INTERVAL_S:",
        "test_cursor.py -k at_rest",
    ),
    Mutant(
        "a flush writes something",
        "store/journal.py",
        "INSERT OR REPLACE INTO cursor SELECT * FROM cursor WHERE output = ?",
        "UPDATE cursor SET seq = seq WHERE output = ?",
        "test_cursor.py -k does_not_flush",
    ),
    Mutant(
        "only the cursor's connection does not flush",
        "store/journal.py",
        "open_connection(path, flushes=False)",
        "open_connection(path)",
        "test_cursor.py -k does_not_flush",
    ),
    Mutant(
        "head: ahead of a cursor that a power loss set back",
        "mqtt/handshake.py",
        "isinstance(seq, int) and is_ours and cursor < seq",
        "isinstance(seq, int) and is_ours and cursor > seq",
        "test_publisher.py -k power_loss",
    ),
    Mutant(
        "head: rows of a copy are not those of its original",
        "mqtt/handshake.py",
        "<= await self._context.journal.identity.head_bound():",
        "<= await self._context.journal.head():",
        "test_publisher.py -k grew_before",
    ),
    Mutant(
        "head: rows of a copy over a restart",
        "store/database.py",
        "INSERT OR IGNORE INTO meta\nSELECT 'head_bound'",
        "INSERT OR REPLACE INTO meta\nSELECT 'head_bound'",
        "test_publisher.py -k grew_before",
    ),
    Mutant(
        "head: ten times a second at most",
        "mqtt/cursor.py",
        "if (delay := self._head_due_at - time.monotonic()) > 0:",
        "if (delay := self._head_due_at - time.monotonic()) > 1e9:",
        "test_cursor.py -k distance",
    ),
    Mutant(
        "window: auto has a bound",
        "mqtt/session.py",
        "self._context.settings.window or MAX_AUTO_WINDOW, self",
        "self._context.settings.window or 65535, self",
        "test_publisher.py -k large_as",
    ),
    Mutant(
        "cursor only behind what was acknowledged",
        "mqtt/lane.py",
        "while self.rows and self.rows[0].unfinished == 0:",
        "while self.rows:",
        "test_window.py",
    ),
    Mutant(
        "lane: what waits is noted with the cursor that passed it",
        "store/journal.py",
        "(_MOVE_CURSOR, (self._output, positions.cursor))\n",
        "(_MOVE_CURSOR, (self._output, positions.cursor))\n            return\n",
        "test_machine.py test_owed.py",
    ),
    Mutant(
        "lane: the cursor waits for one that is closing",
        "mqtt/lanes.py",
        "cursor = min([self.main.finished_seq, *limits])",
        "cursor = self.main.finished_seq",
        "test_window.py",
    ),
    Mutant(
        "lane: it takes what comes of its class",
        "mqtt/lanes.py",
        "return lane if lane is not None and lane.closing is None else None",
        "return None",
        "test_window.py",
    ),
    Mutant(
        "lane: it closes where it is level alone",
        "mqtt/lanes.py",
        "if lane.closing is None and lane.read == self.main.read and not",
        "if lane.closing is None and not",
        "test_window.py",
    ),
    Mutant(
        "lane: a doubted one sends a trial alone",
        "mqtt/window.py",
        "            return lane.next_of_trial()\n",
        "            pass\n",
        "test_window.py",
    ),
    Mutant(
        "lane: a class that passes again begins anew",
        "mqtt/lane.py",
        "        if was_refused:\n",
        "        if False:\n",
        "test_window.py",
    ),
    Mutant(
        "what waits of a class is never trimmed",
        "store/housekeeping.py",
        "return min([*cursors, *lanes, head])",
        "return min([*cursors, head])",
        "test_housekeeping.py",
    ),
    Mutant(
        "what waits of a class is dropped in time",
        "store/housekeeping.py",
        "        dropped += await _drop_lanes(db, output, cursor, before, classes)\n",
        "",
        "test_housekeeping.py",
    ),
    Mutant(
        "what one output drops is no loss of another",
        "store/housekeeping.py",
        "execute(_COUNT_DROPPED, (output, count, low))",
        'execute(_COUNT_DROPPED, ("mqtt", count, low))',
        "test_housekeeping.py",
    ),
    Mutant(
        "a restore of one output leaves that of another",
        "store/journal.py",
        "SET restore_from = NULL WHERE output = ?",
        "SET restore_from = NULL WHERE output <> ?",
        "test_journal.py",
    ),
    Mutant(
        "each reader of the journal has a wake-up of its own",
        "store/growth.py",
        "        for event in self._events:\n",
        "        for event in list(self._events)[:1]:\n",
        "test_store.py -k wakes",
    ),
    Mutant(
        "cursor never goes back",
        "store/journal.py",
        "ON CONFLICT (output) DO UPDATE SET seq = max(seq, excluded.seq)",
        "ON CONFLICT (output) DO UPDATE SET seq = excluded.seq",
        "test_journal.py",
    ),
    Mutant(
        "PUBACK: its reason is looked at",
        "mqtt/session.py",
        "        if code < FIRST_REFUSAL_CODE:\n            self._accept(outgoing)",
        "        if True:\n            self._accept(outgoing)",
        "test_publisher.py",
    ),
    Mutant(
        "PUBACK: only a whole one",
        "mqtt/packets.py",
        "if length is None or length[1] + length[0] > len(buffer):",
        "if length is None:",
        "test_link.py",
    ),
    Mutant(
        "PUBACK: its length may have several bytes",
        "mqtt/packets.py",
        "    length = decode_length(buffer, at + 1)\n",
        "    length = (buffer[at + 1], at + 2)\n",
        "test_link.py",
    ),
    Mutant(
        "SUBACK: a refusal is no subscription",
        "mqtt/link.py",
        "            if code >= FIRST_REFUSAL_CODE:\n",
        "            if code > 0xFF:\n",
        "test_link.py -k subscription",
    ),
    Mutant(
        "a connect that is cancelled is cleared away",
        "mqtt/link.py",
        "await self._abandon(connecting)",
        "pass",
        "test_link.py -k cancelled",
    ),
    Mutant(
        "a will has the retain flag of its message",
        "mqtt/link.py",
        "retain=will.retain, properties",
        "retain=True, properties",
        "test_link.py -k will",
    ),
    Mutant(
        "border: what another client publishes ends nothing",
        "mqtt/link.py",
        "except Exception as error:  # noqa: BLE001  # it comes",
        "except MemoryError as error:  # it comes",
        "test_link.py -k set_aside",
    ),
    Mutant(
        "a broker without retained messages is refused",
        "mqtt/broker_errors.py",
        'if getattr(properties, "RetainAvailable", 1) == 0:',
        "if False:",
        "test_link.py -k used",
    ),
    Mutant(
        "a packet id on its way is not given again",
        "mqtt/paho_io.py",
        "while (mid := self._client._mid_generate()) in self._sent:\n            pass\n        return mid",
        "return self._client._mid_generate()",
        "test_link.py",
    ),
    Mutant(
        "a refusal before the first write is told",
        "mqtt/paho_io.py",
        "self._loop.call_soon_threadsafe(self._on_lost, self._more_specific_error(error))",
        "pass",
        "test_tls.py -k refused_client",
    ),
    Mutant(
        "nobody watches for room with nothing to write",
        "mqtt/link.py",
        " and client.want_write():",
        ":",
        "test_link.py -k watch",
    ),
    Mutant("a signal to stop is repeated", "cli/main.py", "running.cancel()", "pass", "test_cli.py -k forgets"),
    Mutant(
        "PUBACK: its reason is read",
        "mqtt/packets.py",
        "Puback(packet_id, body[2], ",
        "Puback(packet_id, 0, ",
        "test_publisher.py",
    ),
    Mutant(
        "probe before anything of the journal",
        "mqtt/session.py",
        "        await self._handshake.prove_delivery()\n        known",
        "        await asyncio.sleep(0.5)\n        known",
        "test_publisher.py",
    ),
    Mutant(
        "head: a lower number restores",
        "mqtt/handshake.py",
        "low = seq if is_ours and seq <= cursor else 0",
        "low = cursor",
        "test_publisher.py",
    ),
    Mutant(
        "head: another journal restores",
        "mqtt/handshake.py",
        'is_ours = head.get("journal") == tree.journal_id',
        "is_ours = True",
        "test_publisher.py -k another_journal",
    ),
    Mutant(
        "head: a higher number renews the journal id",
        "mqtt/handshake.py",
        "known, is_older = cursor, seq > cursor",
        "known, is_older = cursor, False",
        "test_backup.py -k event_id",
    ),
    Mutant(
        "head: another instance publishes nothing",
        "mqtt/handshake.py",
        "            raise await self._foreign_instance(head, here)\n",
        "            return\n",
        "test_bridge.py -k foreign",
    ),
    Mutant(
        "discovery is announced again after a loss",
        "mqtt/session.py",
        "await self._context.callbacks.on_lost(after_seq)",
        "pass",
        "test_backup.py -k event_id",
    ),
    Mutant(
        "a clear is not restored over what lives again",
        "mqtt/retained.py",
        "if message.retain and message.topic not in newer:",
        "if message.retain:",
        "test_publisher.py",
    ),
    Mutant(
        "a topic with rows waiting is not restored",
        "mqtt/retained.py",
        "while later := await journal.retained.rows_of_id_after(id, seq):",
        "while later := []:",
        "test_publisher.py -k waiting",
    ),
    Mutant(
        "backup: the copy has a journal id of its own",
        "store/backup.py",
        "    copy.execute(database.COPIED)\n",
        "",
        "test_backup.py -k own",
    ),
    Mutant(
        "backup: each restore of a copy gets another journal id",
        "store/database.py",
        "WHERE name IN ('copied', 'places')",
        "WHERE name IN ('places')",
        "test_backup.py -k own_once",
    ),
    Mutant(
        "backup: a copy forgets where its original was published",
        "store/database.py",
        "WHERE name IN ('copied', 'places')",
        "WHERE name IN ('copied')",
        "test_backup.py -k another_name",
    ),
    Mutant(
        "head: a second restore is told",
        "mqtt/handshake.py",
        "known, is_older = last or cursor or seq, cursor > last",
        "known, is_older = seq, cursor > last",
        "test_backup.py -k second_restore",
    ),
    Mutant(
        "head: of another journal renews the id that rows were published under",
        "mqtt/handshake.py",
        "known, is_older = last or cursor or seq, cursor > last",
        "known, is_older = last or cursor or seq, False",
        "test_backup.py -k plain_copy",
    ),
    Mutant(
        "head: an instance that was renamed goes on",
        "model/heads.py",
        "or is_former(head, here.base, identity) else",
        "else",
        "test_backup.py -k renamed_instance",
    ),
    Mutant(
        "head: a stranger's name is not one that this database had",
        "model/heads.py",
        'return identity.knows(head.get("journal")) and before in identity.places',
        "return True",
        "test_publisher.py -k instance test_heads.py",
    ),
    Mutant(
        "a renamed instance moves its devices",
        "homeassistant/announcer.py",
        "place = (self._tree.base, self._tree.instance)",
        "place = (self._tree.base,)",
        "test_announcer.py -k another_instance",
    ),
    Mutant(
        "old base: only where the head is this database's own",
        "mqtt/purge.py",
        "if head is None or not is_former(head, base, identity):",
        "if head is None:",
        "test_old_bases.py -k another_bridge",
    ),
    Mutant(
        "old base: not where a bridge is online",
        "mqtt/purge.py",
        "and not is_requested:",
        "and False:",
        "test_old_bases.py -k online",
    ),
    Mutant(
        "old base: the head goes last",
        "mqtt/purge.py",
        "for part in (others, [old.head]):",
        "for part in ([old.head], others):",
        "test_old_bases.py",
    ),
    Mutant(
        "old base: what belongs to the new one stays",
        "mqtt/purge.py",
        "await _without_owned({t for t in kept.topics if old.may_own(t)}, tree, journal)",
        "sorted(t for t in kept.topics if old.may_own(t))",
        "test_old_bases.py -k nested",
    ),
    Mutant(
        "check: another bridge's head",
        "cli/check.py",
        'if owner_of(head, here, await _identity(config)) == "another":',
        "if False:",
        "test_old_bases.py -k check",
    ),
    Mutant(
        "full disk: the API is not asked for what cannot be kept",
        "polling/poll_cycle.py",
        "            await self._states.store_changed([runtime], runtime.progress)\n",
        "            await self._states.publish(runtime)\n",
        "test_full_disk.py -k does_not_ask",
    ),
    Mutant(
        "full disk: a poll is tried again within seconds",
        "polling/poll_cycle.py",
        "wait = wait if retry is None else min(wait, retry)",
        "pass",
        "test_full_disk.py -k tries_again_soon",
    ),
    Mutant(
        "full disk: an alert waits",
        "polling/call_states.py",
        "            self._waiting_alerts = waiting + self._waiting_alerts\n",
        "",
        "test_full_disk.py -k alert",
    ),
    Mutant(
        "full disk: relations are tried again",
        "polling/poller.py",
        "                await asyncio.sleep(FRESH_CHECK_S)\n                self._relations_wanted.set()\n",
        "",
        "test_full_disk.py -k relations",
    ),
    Mutant(
        "full disk: trimming is tried soon", "store/housekeeping.py", "pause = RETRY_S", "pass", "test_full_disk.py"
    ),
    Mutant(
        "full disk: the broker is tried soon",
        "mqtt/publisher.py",
        "                longest = MAX_STORE_RETRY_S\n",
        "",
        "test_full_disk.py -k broker",
    ),
    Mutant("backup: one moment", "store/backup.py", 'read.execute("BEGIN")', "pass", "test_backup.py -k one_moment"),
    Mutant(
        "backup: private", "store/backup.py", "os.O_CLOEXEC, 0o600", "os.O_CLOEXEC, 0o644", "test_backup.py -k running"
    ),
    Mutant(
        "backup: replaces nothing",
        "store/backup.py",
        "(target.exists() or target.is_symlink()) and not force",
        "False",
        "test_backup.py -k forced",
    ),
    Mutant(
        "a row keeps the journal id that it went out with",
        "mqtt/topics.py",
        "            if seq <= until:\n",
        "            if False:\n",
        "test_backup.py -k old_ids",
    ),
    Mutant(
        "Receive Maximum",
        "mqtt/session.py",
        "return min(self._context.settings.window or MAX_AUTO_WINDOW, self._link.receive_maximum)",
        "return self._context.settings.window or MAX_AUTO_WINDOW",
        "test_publisher.py",
    ),
    Mutant(
        "mqtt.max_payload",
        "mqtt/sender.py",
        "limit = min(self._max_payload,",
        "limit = min(1 << 28,",
        "test_publisher.py",
    ),
    Mutant(
        "Maximum Packet Size",
        "mqtt/sender.py",
        "max(0, self.link.maximum_packet_size - beside)",
        "1 << 28",
        "test_owed.py -k restore_and_republish",
    ),
    Mutant(
        "correlation data counts for the size of an answer",
        "mqtt/sender.py",
        ' + len(message.correlation or b"")',
        "",
        "test_publisher.py -k correlation",
    ),
    Mutant(
        "the broker is told the largest message that the bridge takes",
        "mqtt/link.py",
        "properties=_limits(settings) if self.is_mqtt5 else None",
        "properties=None",
        "test_publisher.py -k kept_back",
    ),
    Mutant(
        "retained commands of unknown calls are not remembered",
        "mqtt/receiver.py",
        "if message.retain and self._is_of_known_call(message.topic):",
        "if message.retain:",
        "test_publisher.py -k unknown_calls",
    ),
    Mutant(
        "commands that wait are bounded in bytes",
        "commands/inbox.py",
        " and self._bytes + message.size <= MAX_WAITING_BYTES",
        "",
        "test_publisher.py -k bounded_in_bytes",
    ),
    Mutant(
        "what has no row is not too large either",
        "mqtt/sender.py",
        "        return reason is None\n",
        "        return True\n",
        "test_owed.py",
    ),
    Mutant(
        "restore after a trimmed journal",
        "mqtt/handshake.py",
        "if 0 < low < oldest - 1:",
        "if False:",
        "test_owed.py -k gone",
    ),
    Mutant(
        "head published while restoring",
        "mqtt/cursor.py",
        "if self._is_head_under_way or self._drain_lock.locked() or not",
        "if self._is_head_under_way or not",
        "test_owed.py -k head",
    ),
    Mutant(
        "the cursor at close",
        "mqtt/session.py",
        "        self._blame(unanswered)\n        await self._cursor.save_last()\n",
        "        self._blame(unanswered)\n",
        "test_owed.py -k acknowledged",
    ),
    Mutant(
        "the head at a stop",
        "mqtt/session.py",
        "await self._publish_offline(with_head=True)",
        "await self._publish_offline()",
        "test_publisher.py -k stop_publishes",
    ),
    Mutant(
        "no rows after the last head",
        "mqtt/session.py",
        "        self._window.stop_rows()\n",
        "",
        "test_publisher.py -k stop_sends",
    ),
    Mutant(
        "rows that are stopped",
        "mqtt/window.py",
        "if self._has_stopped_rows:",
        "if False:",
        "test_window.py -k stopped_rows",
    ),
    Mutant(
        "five tries",
        "mqtt/refusals.py",
        "if outgoing.refused_alone and outgoing.tries >= tries:",
        "if False:",
        "test_publisher.py -k acl_denial",
    ),
    Mutant(
        "set aside only while others of its class pass",
        "mqtt/lane.py",
        "self.tries > 0 and self.lane.accepted > self.accepted_before",
        "self.tries > 0",
        "test_owed.py -k denied_waits test_publisher.py",
    ),
    Mutant(
        "one message at a time after a loss",
        "mqtt/session.py",
        "size = 1 if context.suspects.topics else self._full_window()",
        "size = self._full_window()",
        "test_owed.py -k found_by_two",
    ),
    Mutant(
        "what breaks connections waits",
        "mqtt/fence.py",
        "if outgoing.lane is not None and outgoing.message.topic in self.withheld:",
        "if False:",
        "test_window.py -k blamed",
    ),
    Mutant(
        "what breaks every connection is set aside",
        "mqtt/refusals.py",
        "            if outgoing is None or outgoing.tries < MAX_BREAKS or not outgoing.refused_alone:",
        "            if True:",
        "test_owed.py -k breaks_every",
    ),
    Mutant(
        "quick give-up per topic",
        "mqtt/refusals.py",
        "tries = 1 if topic in self._set_aside_topics",
        "tries = 1 if self._set_aside_topics",
        "test_owed.py -k short_refusal",
    ),
    Mutant(
        "a class that is refused is told once",
        "store/journal.py",
        "        return count > 0\n\n    async def set_aside",
        "        return True\n\n    async def set_aside",
        "test_owed.py -k survives",
    ),
    Mutant(
        "an alert that is refused makes no alert",
        "mqtt/refusals.py",
        "        if about == self._tree.alert:",
        "        if False:",
        "test_owed.py -k make_no_alerts",
    ),
    Mutant(
        "what is set aside of a retained topic is owed",
        "mqtt/refusals.py",
        "        if message.retain and (rows :=",
        "        if False and (rows :=",
        "test_owed.py -k owed_until",
    ),
    Mutant(
        "a newer row settles the debt",
        "mqtt/refusals.py",
        "            self.paid.add(message.topic)\n",
        "",
        "test_owed.py -k settles",
    ),
    Mutant(
        "what is owed is paid at a connect",
        "mqtt/refusals.py",
        "            self._owed.update(debt.topic for debt in debts)\n",
        "            break\n",
        "test_owed.py -k next_start",
    ),
    Mutant(
        "stall watchdog",
        "mqtt/sender.py",
        "if oldest is not None and time.monotonic() - oldest.sent_at > STALL_TIMEOUT_S:",
        "if False:",
        "test_publisher.py",
    ),
    Mutant(
        "watch: the oldest message in flight, not the last answer",
        "mqtt/sender.py",
        "oldest = next(iter(self._in_flight.values()), None)",
        "oldest = next(reversed(self._in_flight.values()), None)",
        "test_publisher.py -k busy",
    ),
    Mutant(
        "probe: each has a word of its own",
        "mqtt/probing.py",
        "        self._nonce = secrets.token_hex(8)\n        self._came_back.clear()",
        "        self._nonce = self._nonce or secrets.token_hex(8)\n        self._came_back.clear()",
        "test_publisher.py -k word",
    ),
    Mutant(
        "a will only after a look",
        "mqtt/publisher.py",
        "            await self._look(context)\n",
        "            pass\n",
        "test_publisher.py -k will",
    ),
    Mutant(
        "a look is made without a will",
        "mqtt/publisher.py",
        "async with self._link(None, self._look_suffix) as link:",
        'async with self._link(Message(self.tree.status, b"{}", retain=True), "-look") as link:',
        "test_publisher.py -k will",
    ),
    Mutant(
        "who has not said online does not say offline",
        "mqtt/session.py",
        "        if not self._prober.answers_twins:\n            return\n",
        "",
        "test_publisher.py -k goodbye",
    ),
    Mutant(
        "MQTT 3.1.1: a broker must prove that it keeps messages",
        "mqtt/look.py",
        "                if not link.is_mqtt5 and not self._status_kept.is_set():\n",
        "                if False:\n",
        "test_publisher.py -k retain",
    ),
    Mutant(
        "the twin that came later gives way",
        "mqtt/twins.py",
        "return self._lasted < self._was_away and not self._has_given_way",
        "return False",
        "test_publisher.py -k twins",
    ),
    Mutant(
        "who is connected answers a twin that looks",
        "mqtt/probing.py",
        "elif self.answers_twins and not self._is_answering:",
        "elif False:",
        "test_publisher.py -k probe_of_another",
    ),
    Mutant(
        "a bridge looks before it takes a connection over",
        "mqtt/look.py",
        "        if self._prober.twin_answered.is_set():\n",
        "        if False:\n",
        "test_publisher.py -k stays_away",
    ),
    Mutant(
        "a look takes nobody's connection",
        "mqtt/publisher.py",
        "MqttConnection(self.settings, self._client_id + suffix, will=will)",
        "MqttConnection(self.settings, self._client_id, will=will)",
        "test_publisher.py -k stays_away",
    ),
    Mutant(
        "connections that do not last look again",
        "mqtt/publisher.py",
        "if is_long_ago or self._short_in_a_row >= MAX_SHORT_CONNECTIONS:",
        "if is_long_ago:",
        "test_publisher.py -k do_not_last",
    ),
    Mutant(
        "a twin is recognised",
        "mqtt/link.py",
        "reason_code.value == SESSION_TAKEN_OVER",
        "reason_code.value < 0",
        "test_link.py -k says_why",
    ),
    Mutant(
        "answers go where a stranger says only if they may",
        "mqtt/receiver.py",
        "self._context.answer_to(message.topic, topic if problem is None else None, message.correlation)",
        "self._context.answer_to(message.topic, topic, message.correlation)",
        "test_polling_manager.py -k response_topic",
    ),
    Mutant(
        "the name of an unknown request is no topic yet",
        "mqtt/topics.py",
        "is_level = len(address.name) <= MAX_NAME_CHARS and address.name.isprintable()",
        "is_level = address.name.isprintable()",
        "test_polling_manager.py -k longest",
    ),
    Mutant(
        "a message that MQTT has no room for breaks no connection",
        "mqtt/sender.py",
        "self._handle_answer(outgoing, FIRST_REFUSAL_CODE, str(error))",
        "self.fail(error)",
        "test_publisher.py -k has_no_room",
    ),
    Mutant(
        "quick acknowledgements",
        "mqtt/sender.py",
        "            self.link.set_tcp_quickack()\n",
        "            pass\n",
        "test_publisher.py",
    ),
    Mutant(
        "no barrier between pages",
        "mqtt/drain.py",
        "while self._window.unfinished_rows > MAX_ROWS_AHEAD - PAGE_ROWS:",
        "while self._window.unfinished_rows > 0:",
        "test_publisher.py",
    ),
    # ── what is stored is stored whole ─────────────────────────────────────────────────────────
    Mutant(
        "rollback also when cancelled",
        "store/database.py",
        "    except BaseException:\n        await asyncio.shield",
        "    except Exception:\n        await asyncio.shield",
        "test_store.py test_cancellation.py",
    ),
    Mutant(
        "BEGIN inside the try",
        "store/database.py",
        '    try:\n        await db.execute("BEGIN IMMEDIATE")\n',
        '    await db.execute("BEGIN IMMEDIATE")\n    try:\n',
        "test_store.py",
    ),
    Mutant(
        "newest samples are found by their id",
        "store/schema.sql",
        "CREATE INDEX newest_id ON newest (id);\n",
        "",
        "test_query_plans.py",
    ),
    Mutant(
        "reads of the store see committed rows only",
        "store/connections.py",
        "await database.fetch_all(self._reader, sql, parameters)",
        "await database.fetch_all(self._writer, sql, parameters)",
        "test_store.py -k uncommitted",
    ),
    Mutant(
        "journal numbers are never used again",
        "store/schema.sql",
        "seq INTEGER PRIMARY KEY AUTOINCREMENT",
        "seq INTEGER PRIMARY KEY",
        "test_store.py",
    ),
    Mutant(
        "one bridge on one database",
        "store/database.py",
        "        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)\n",
        "        pass\n",
        "test_store.py",
    ),
    Mutant(
        "a file system without locks is a sentence",
        "store/database.py",
        '    except OSError as error:\n        raise StoreError(\n            f"{path} cannot be locked',
        '    except TimeoutError as error:\n        raise StoreError(\n            f"{path} cannot be locked',
        "test_files.py -k without_locks",
    ),
    Mutant(
        "an error within the lock is no second bridge",
        "store/database.py",
        "        _take_lock(descriptor, path)\n        yield\n",
        "        _take_lock(descriptor, path)\n        yield\n"
        '    except BlockingIOError:\n        raise StoreError("in use by another bridge") from None\n',
        "test_files.py -k within_the_lock",
    ),
    Mutant(
        "private database",
        "store/database.py",
        "os.O_EXCL | os.O_CLOEXEC, 0o600",
        "os.O_EXCL | os.O_CLOEXEC, 0o644",
        "test_store.py",
    ),
    Mutant(
        "newer schema is refused", "store/database.py", "    if version > VERSION:", "    if False:", "test_store.py"
    ),
    Mutant(
        "synchronous commits",
        "store/database.py",
        "'FULL' if flushes else 'NORMAL'",
        "'OFF' if flushes else 'NORMAL'",
        "test_store.py",
    ),
    Mutant(
        "what is not published is never trimmed",
        "store/housekeeping.py",
        "return min([*cursors, *lanes, head])",
        "return head",
        "test_housekeeping.py",
    ),
    # ── a listing is whole or nothing ──────────────────────────────────────────────────────────
    Mutant(
        "completeness: the total is reached",
        "api/paging.py",
        "if self._total is not None and self._received != self._total:",
        "if False:",
        "test_paging.py",
    ),
    Mutant(
        "completeness: the total stays",
        "api/paging.py",
        "if self._total is not None and result.total != self._total:",
        "if False:",
        "test_paging.py",
    ),
    Mutant(
        "completeness: nothing twice",
        "api/paging.py",
        "        if repeated:\n",
        "        if False:\n",
        "test_paging.py",
    ),
    Mutant(
        "completeness: no page twice", "api/paging.py", "if position in self._visited:", "if False:", "test_paging.py"
    ),
    Mutant(
        "completeness: an end",
        "api/paging.py",
        "elif self._pages >= self._page.max_pages:",
        "elif False:",
        "test_paging.py -k end",
    ),
    Mutant(
        "next page on the same server", "api/paging.py", "        if elsewhere:", "        if False:", "test_paging.py"
    ),
    Mutant(
        "a field that no record has is missing",
        "decode/coverage.py",
        "            missing.append(name)",
        "            pass",
        "test_coverage.py",
    ),
    Mutant(
        "a page without records loads no hashes",
        "polling/poll_records.py",
        "                if not page.ids:\n",
        "                if False:\n",
        "test_poll_runner.py -k needs_no_stored_hashes",
    ),
    Mutant(
        "what was not decoded since a restart is counted",
        "polling/poll_records.py",
        "        if not memory.notes.complete:",
        "        if False:",
        "test_coverage.py -k restart",
    ),
    Mutant(
        "the end of a finding is told",
        "polling/call_states.py",
        "        if about not in holding",
        "        if False",
        "test_coverage.py -k over",
    ),
    Mutant(
        "ids that match nothing get no topic",
        "polling/poll_report.py",
        "                kept = {id: part.pop(id) for id in unmatched}",
        "                kept = {id: part[id] for id in unmatched}",
        "test_id_matching.py",
    ),
    Mutant(
        "what was kept aside is published when its id is known",
        "polling/poll_runner.py",
        "            await self._publish_kept(plan, outcome)",
        "            pass",
        "test_id_matching.py",
    ),
    Mutant(
        "usage of an unknown product gets no topic",
        "polling/poll_records.py",
        "        kept = {id for id, owner in owners.items() if owner in unmatched}",
        "        kept = set[str]()",
        "test_id_matching.py",
    ),
    Mutant(
        "a member that is gone is told",
        "decode/answer_shape.py",
        "        if member.last - member.first >= DAY_MS and",
        "        if False and",
        "test_answer_shape.py",
    ),
    Mutant(
        "a list that is not there is no empty listing",
        "decode/pages.py",
        "    if not is_there:",
        "    if False:",
        "test_listings.py",
    ),
    Mutant(
        "an empty list is not contradicted",
        "decode/pages.py",
        "    if not records and (reason :=",
        "    if False and (reason :=",
        "test_listings.py",
    ),
    Mutant(
        "hashes follow the names of the answer",
        "decode/record_hashes.py",
        'rename = {f"m{i}": written.get(name, name)',
        'rename = {f"m{i}": name',
        "test_record_hashes.py -k names_of_the_answer",
    ),
    Mutant(
        "a refused id is told",
        "api/fetch.py",
        "        self.count += 1\n",
        "        self.count += 0\n",
        "test_tolerance.py",
    ),
    Mutant(
        "requested report on the same server",
        "api/report_jobs.py",
        "    if is_elsewhere:",
        "    if False:",
        "test_api_faults.py -k requested",
    ),
    Mutant(
        "redirect on the same server", "api/answers.py", "    if not is_same_server:", "    if False:", "test_api.py"
    ),
    Mutant("api.max_body", "api/client.py", "if size > self._settings.max_body:", "if False:", "test_api.py"),
    Mutant(
        "headers in several lines",
        "api/answers.py",
        "return self.headers.getall(name, [])",
        "return self.headers.getall(name, [])[:1]",
        "test_api_faults.py -k several_lines",
    ),
    Mutant(
        "a link's quotes and commas",
        "api/headers.py",
        "value = self._quoted() if quoted else",
        "value =",
        "test_headers.py",
    ),
    Mutant(
        "completeness: a next page that is not followed",
        "api/paging.py",
        '        if result.next_links:\n            raise Incomplete("an answer names a next',
        '        if False:\n            raise Incomplete("an answer names a next',
        "test_paging.py",
    ),
    Mutant(
        "completeness: what cannot be read is no end",
        "api/paging.py",
        "if self._total is None and result.doubt:",
        "if False:",
        "test_paging.py test_api_faults.py -k end",
    ),
    Mutant(
        "completeness: a part alone is no end",
        "api/paging.py",
        "if self._total is None and result.is_part and self._pages == 1:",
        "if False:",
        "test_paging.py",
    ),
    Mutant(
        "completeness: a server that names a next page does page",
        "api/paging.py",
        "return is_repeated and not result.next_links",
        "return is_repeated",
        "test_paging.py",
    ),
    Mutant(
        "a number is a cursor",
        "api/fetch.py",
        "isinstance(cursor, (str, int)) and cursor is not True",
        "isinstance(cursor, str)",
        "test_api_faults.py -k cursor",
    ),
    Mutant(
        "JSON that calls itself a page",
        "api/answers.py",
        "(answer.media_type in _HTML_TYPES and first_byte not in _JSON_BEGINS)",
        "answer.media_type in _HTML_TYPES",
        "test_api.py -k page",
    ),
    Mutant(
        "charsets",
        "api/client.py",
        "to_utf8, body, response.charset)",
        "to_utf8, body, None)",
        "test_api.py -k charset",
    ),
    Mutant(
        "empty_status",
        "api/client.py",
        "if answer.status == 204 or answer.status in empty_status:",
        "if False:",
        "test_api_faults.py -k empty_span",
    ),
    Mutant(
        "budget of the hour",
        "api/rate_limits.py",
        "        if wait > 0:\n            return wait\n",
        "        if self._last + self.limit.min_interval > now:\n            return wait\n",
        "test_limits.py",
    ),
    Mutant(
        "budget of the hour over a reload",
        "api/client.py",
        "self._pace.limit = settings.rate_limit",
        "self._pace = Pace(settings.rate_limit)",
        "test_api.py -k reload",
    ),
    Mutant(
        "requests in flight over a reload",
        "api/client.py",
        "self._in_flight.resize(settings.rate_limit.max_in_flight)",
        "self._in_flight = PrioritySemaphore(settings.rate_limit.max_in_flight)",
        "test_api.py -k reload",
    ),
    Mutant(
        "503 with Retry-After pauses the host",
        "api/client.py",
        " or (status == 503 and pause is not None)",
        "",
        "test_api.py -k says_when",
    ),
    Mutant(
        "429 without a word grows its pause",
        "api/rate_limits.py",
        "number = self._refusals - 1",
        "number = 0",
        "test_limits.py",
    ),
    Mutant(
        "a shared back-off", "api/rate_limits.py", "if beyond >= 0:", "if False:", "test_limits.py test_api.py -k fail"
    ),
    Mutant(
        "a failing host is asked by one at a time",
        "api/rate_limits.py",
        "        self._back_off(now)\n\n    def note_success",
        "        pass\n\n    def note_success",
        "test_limits.py",
    ),
    Mutant(
        "a token that another request has renewed",
        "api/auth.py",
        "        if self._token is token:\n",
        "        if True:\n",
        "test_api.py -k renewed_stays",
    ),
    Mutant("values of an answer", "decode/sizes.py", "if values > MAX_VALUES:", "if False:", "test_sizes.py"),
    Mutant(
        "depth of an answer",
        "decode/sizes.py",
        " > MAX_DEPTH and _is_deep(text):",
        " > MAX_DEPTH and False:",
        "test_sizes.py",
    ),
    Mutant(
        "strings do not hide depth",
        "decode/sizes.py",
        '_STRING.sub(b"", text).translate',
        "text.translate",
        "test_sizes.py",
    ),
    Mutant(
        "what records take over",
        "decode/pages.py",
        "if size > MAX_MADE_BYTES or len(checked) >= MAX_RECORDS:",
        "if False:",
        "test_sizes.py",
    ),
    Mutant(
        "polls at a time over a reload",
        "polling/poller.py",
        "        self._permits.resize(config.api.rate_limit.max_in_flight)\n",
        "",
        "test_api_faults.py -k reload",
    ),
    Mutant(
        "a failing host is not asked sooner",
        "polling/poll_cycle.py",
        'return "failed", max(wait, error.pause), None',
        'return "failed", wait, None',
        "test_api_faults.py -k failing_host",
    ),
    Mutant("systemd that does not read", "systemd.py", "sender.setblocking(False)", "pass", "test_notify.py"),
    Mutant(
        "the name at a reload",
        "app.py",
        "config = _keep_identity(config, parts.config)",
        "pass",
        "test_polling_manager.py -k sighup",
    ),
    Mutant(
        "no record with a key is no listing",
        "api/fetch.py",
        "    if unreadable and not ids:",
        "    if False:",
        "test_api_faults.py",
    ),
    Mutant(
        "an id twice in a page",
        "api/listing.py",
        "            if id in self.ids:",
        "            if False:",
        "test_poll_runner.py test_record_hashes.py",
    ),
    Mutant(
        "what cannot be read removes nothing",
        "polling/missing_records.py",
        "is_partial = listing.problems.set_aside or",
        "is_partial =",
        "test_api_faults.py -k without_key",
    ),
    # ── removal ────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "removal: after_missing",
        "polling/removal.py",
        "record.missing >= rule.after_missing and ",
        "",
        "test_removal.py",
    ),
    Mutant(
        "removal: after_time",
        "polling/removal.py",
        "return now - record.since >= rule.after_time * 1000",
        "return True",
        "test_removal.py",
    ),
    Mutant(
        "removal: many are held",
        "polling/removal.py",
        "if len(due) > max_at_once(rule, stored) and not released and not hold_expired:",
        "if False:",
        "test_removal.py",
    ),
    Mutant(
        "removal: hold by share", "polling/removal.py", "int(rule.hold_above.share * stored)", "0", "test_removal.py"
    ),
    Mutant("removal: hold by count", "polling/removal.py", "max(rule.hold_above.count,", "max(0,", "test_removal.py"),
    Mutant(
        "removal: empty is held",
        "polling/removal.py",
        "if listed == 0 and stored > 0 and not released:",
        "if False:",
        "test_removal.py",
    ),
    Mutant(
        "a record that comes back was never missing",
        "store/batch_writer.py",
        "UPDATE record SET hash = ?, missing = 0, missing_since = 0",
        "UPDATE record SET hash = ?",
        "test_poll_runner.py -k glitch",
    ),
    Mutant(
        "removed first, then cleared",
        "mqtt/topics.py",
        'return [self._event(row, encode({"record": body.record})), *clears]',
        'return [*clears, self._event(row, encode({"record": body.record}))]',
        "test_topics.py",
    ),
    # ── what is announced ──────────────────────────────────────────────────────────────────────
    Mutant(
        "salted hashes", "decode/record_hashes.py", "(salt, key.encode()", '(b"", key.encode()', "test_record_hashes.py"
    ),
    Mutant(
        "a page with something new is not remembered",
        "api/listing.py",
        "if page.digest and not wanted and",
        "if page.digest and",
        "test_record_hashes.py",
    ),
    Mutant(
        "a remembered page is looked at again in time",
        "api/listing.py",
        "if since <= now < until else None",
        "if until else None",
        "test_record_hashes.py",
    ),
    Mutant(
        "a missing record is looked at when it comes back",
        "store/records.py",
        "if not row[2] and row[3] > presence_after",
        "if row[3] > presence_after",
        "test_store.py",
    ),
    Mutant("volatile fields", "polling/diff.py", "name not in volatile and ", "", "test_diff.py"),
    Mutant(
        "a set in another order is the same",
        "polling/diff.py",
        "    for name in rule.unordered & before.keys():",
        "    for name in ():",
        "test_diff.py",
    ),
    Mutant(
        "a record in an unusual form is walked",
        "decode/path_reader.py",
        'self.lines.append(f"    {variable} = {call}")',
        'self.lines.append("    pass")',
        "test_path_reader.py -k every_shape",
    ),
    Mutant(
        "of equal elements the first counts",
        "decode/path_reader.py",
        "by_text.setdefault(fold_name(text), entry)",
        "by_text[fold_name(text)] = entry",
        "test_path_reader.py",
    ),
    Mutant(
        "decoding is a border",
        "decode/border.py",
        "        except Exception as error:\n            raise Unreadable(_reason(error)) from error",
        "        except values.Unparseable as error:\n            raise Unreadable(_reason(error)) from error",
        "test_api_faults.py -k breaks_its_decoder",
    ),
    Mutant(
        "what is set aside is told with its field",
        "decode/fields.py",
        "            error.add_note(name)\n",
        "",
        "test_api_faults.py -k breaks_its_decoder",
    ),
    Mutant(
        "an unreadable value that did not change is still unreadable",
        "api/listing.py",
        "            self._fields[reading.id] = reading.unparseable\n",
        "            pass\n",
        "test_api_faults.py -k not_known_and_told",
    ),
    Mutant(
        "a number without bounds costs its own bucket alone",
        "decode/pages.py",
        "answer = _loaded(body)\n    if answer is None:",
        "answer = msgspec.json.decode(body)\n    if answer is None:",
        "test_outside.py -k any_field_costs_no_other_record[usage_consumption]",
    ),
    Mutant(
        "the row of a head has bounds",
        "model/heads.py",
        "seq if type(seq) is int and 0 <= seq < 2**63 else None",
        "seq",
        "test_outside.py -k head",
    ),
    Mutant("a set is published sorted", "decode/values.py", "sorted(set(parsed))", "parsed", "test_values.py"),
    Mutant(
        "whole numbers stay whole",
        "decode/values.py",
        "int(digits) if whole",
        "float(digits) if whole",
        "test_values.py",
    ),
    Mutant(
        "no whole number beyond 64 bits",
        "decode/values.py",
        "return -_INT64 <= number < _INT64",
        "return True",
        "test_values.py",
    ),
    Mutant(
        "times are bounded before anything is computed",
        "decode/values.py",
        "if not 0 <= value < _END_OF_TIME:",
        "if value < 0:",
        "test_values.py",
    ),
    Mutant(
        "the length of a value is bounded before a pattern is tried",
        "decode/values.py",
        "if len(value) > MAX_VALUE_CHARS:",
        "if False:",
        "test_values.py",
    ),
    Mutant(
        "an unknown unit is refused",
        "decode/units.py",
        "    if not can_convert(unit, target):",
        "    if False:",
        "test_units.py",
    ),
    Mutant(
        "location threshold",
        "polling/diff.py",
        "return max(distance(before, after), height) > threshold",
        "return max(distance(before, after), height) > 0",
        "test_diff.py",
    ),
    Mutant("an empty component list", "polling/diff.py", "if not after or (stored", "if (stored", "test_diff.py"),
    Mutant(
        "initial until the last slice",
        "polling/poll_records.py",
        "initial=not progress.complete,",
        "initial=False,",
        "test_poll_runner.py -k initial",
    ),
    Mutant(
        "remapped until the last slice",
        "polling/poll_records.py",
        "            remapped=progress.remapped,\n",
        "            remapped=False,\n",
        "test_poll_runner.py -k remapped",
    ),
    Mutant(
        "samples exactly once",
        "polling/samples.py",
        "    if ts in past.seen:",
        "    if False:",
        "test_samples.py",
    ),
    Mutant("samples: the horizon", "polling/samples.py", "or ts >= horizon else", "or True else", "test_samples.py"),
    Mutant(
        "metric never goes back", "polling/samples.py", "newest = ts >= past.ts and ", "newest = ", "test_samples.py"
    ),
    Mutant(
        "no metric of what is gone",
        "polling/samples.py",
        "is_removed = sample.id in context.removed",
        "is_removed = False",
        "test_samples.py -k removed_id",
    ),
    Mutant(
        "what came while an id was gone counts as the newest",
        "polling/samples.py",
        "    if newest and is_removed:\n",
        "    newest = newest and not is_removed\n    if newest and is_removed:\n",
        "test_samples.py -k is_back",
    ),
    Mutant(
        "no removal between the look at a sample's id and its commit",
        "polling/poll_report.py",
        "async with self._context.slice_lock:\n                await self._commit_samples(",
        "if True:\n                await self._commit_samples(",
        "test_poll_runner.py -k during_a_removal",
    ),
    Mutant(
        "no removal between the look at a terminal and its components' commit",
        "polling/poll_records.py",
        "async with self._context.slice_lock:\n                await self._commit_slice(",
        "if True:\n                await self._commit_slice(",
        "test_poll_runner.py -k during_a_removal",
    ),
    Mutant(
        "what came while an id was gone is no retained topic",
        "store/batch_writer.py",
        "return 0 if entry is None else self._head + entry + 1",
        "return self._head + (entry or 0) + 1",
        "test_poll_runner.py -k removed_terminal",
    ),
    Mutant(
        "a sample with other values marks its device",
        "store/batch_writer.py",
        "                    self._dirty_devices.add((n.entity, n.id))\n",
        "                    pass\n",
        "test_announcer.py",
    ),
    Mutant(
        "a sample that is not the newest has a stream",
        "store/batch_writer.py",
        "(s.entity, s.report, s.id)) not in written]",
        "(s.entity, s.report, s.id)) in written]",
        "test_store.py",
    ),
    Mutant(
        "what was seen of a removed id stays",
        "store/batch_writer.py",
        "UPDATE newest SET doc = '', seq = 0, letters = '' WHERE",
        "DELETE FROM newest WHERE",
        "test_poll_runner.py -k remov test_store.py",
    ),
    Mutant(
        "forecast: at most once an hour",
        "trends/announcing.py",
        "after.ts - before.ts >= MIN_PAUSE_MS and has_moved",
        "has_moved",
        "test_forecast_announcing.py",
    ),
    Mutant(
        "forecast: alerted once a cycle",
        "trends/announcing.py",
        "until and until not in standing",
        "until",
        "test_forecast_announcing.py",
    ),
    Mutant(
        "forecast: nothing is interpolated over a long gap",
        "trends/usage_days.py",
        "past.ts < 0 or gap > MAX_GAP_MS",
        "past.ts < 0",
        "test_usage_days.py",
    ),
    Mutant(
        "forecast: a wrong time does not stop it",
        "trends/usage_days.py",
        "report.ts < past.ts - MAX_GAP_MS",
        "False",
        "test_usage_days.py",
    ),
    Mutant(
        "forecast: a pool that is used up goes on",
        "trends/allowances.py",
        "return largest if largest >= limit else max(limit, sum(uses))",
        "return limit",
        "test_allowances.py",
    ),
    Mutant(
        "forecast: a quiet bucket is looked at",
        "decode/record_hashes.py",
        ' or call.reads == "usage"',
        "",
        "test_forecaster.py",
    ),
    Mutant(
        "forecast: cleared with its usage",
        "polling/diff.py",
        'names = ["usage", "forecast"] if has_forecast',
        'names = ["usage"] if has_forecast',
        "test_forecaster.py",
    ),
    # ── commands ───────────────────────────────────────────────────────────────────────────────
    Mutant(
        "a retained command is obeyed once",
        "commands/executor.py",
        "if has_identity and runs_once and await",
        "if False and await",
        "test_polling_manager.py -k retained",
    ),
    Mutant(
        "a live command does not touch the memory",
        "commands/executor.py",
        'message.retain or (not self._is_mqtt5 and message.source == "mqtt")',
        "True",
        "test_polling_manager.py -k retained",
    ),
    Mutant(
        "a long command is refused",
        "commands/decode.py",
        "    if len(payload) > MAX_COMMAND_BYTES:",
        "    if False:",
        "test_commands.py",
    ),
    Mutant(
        "request budget",
        "polling/poller.py",
        "        self._budget.check(calls, changes)\n",
        "",
        "test_polling_manager.py -k budget",
    ),
    Mutant(
        "request budget: of all calls together",
        "polling/request_budget.py",
        "        for id in calls:\n            configured, runtime",
        "        for id in calls[:1]:\n            configured, runtime",
        "test_poller.py -k whole",
    ),
    Mutant(
        "a setting is stored with the memory of its command",
        "store/commands.py",
        "            await self._write_identity(transaction, identity)\n\n    async def add_poll",
        "        await self._write_identity(transaction, identity)\n\n    async def add_poll",
        "test_poller.py -k cannot_be_stored",
    ),
    Mutant(
        "a poll that waits runs after a restart",
        "commands/executor.py",
        "            await self._resume_polls(group)\n",
        "",
        "test_polling_manager.py -k waits_runs",
    ),
    Mutant(
        "a poll that waits is not said to be obeyed",
        "commands/executor.py",
        "        if waits:\n",
        "        if False:\n",
        "test_polling_manager.py -k comes_again",
    ),
    Mutant(
        "a poll request stays until its own poll has ended",
        "polling/poll_cycle.py",
        "runtime.ended |= {poll.number for poll in requested if poll.number is not None}",
        "runtime.ended |= {poll.number for poll in requested + runtime.requested if poll.number is not None}",
        "test_poller.py -k stored_until",
    ),
    Mutant(
        "a poll request moves a queued call to the front",
        "polling/poller.py",
        "        self._permits.make_urgent(call)\n",
        "",
        "test_poller.py -k queued",
    ),
    Mutant(
        "polls at once after SIGHUP",
        "polling/poller.py",
        "        self._permits.resize(config.api.rate_limit.max_in_flight)\n",
        "",
        "test_poller.py -k sighup",
    ),
    Mutant(
        "a setting compiles nothing",
        "polling/poll_runner.py",
        "if compiled_settings(before) != compiled_settings(config):",
        "if True:",
        "test_poller.py -k compiles",
    ),
    Mutant(
        "a release survives the poll under way",
        "polling/poll_cycle.py",
        "            released=outcome.progress.released or runtime.released,\n",
        "",
        "test_poller.py -k release",
    ),
    Mutant(
        "interval counted from the begin of the last poll",
        "polling/poll_cycle.py",
        "schedule.next_wait(runtime.effective, time.monotonic() - started)",
        "schedule.next_wait(runtime.effective, 0.0)",
        "test_poller.py -k counted_from",
    ),
    Mutant(
        "last_poll after a failure: noted at the begin",
        "polling/poll_cycle.py",
        "last_poll=self._clock.now(), polled=self._store.steady.now()",
        "polled=self._store.steady.now()",
        "test_poller.py -k last_poll",
    ),
    Mutant(
        "last_poll after a failure: kept over what the disk says",
        "polling/poll_cycle.py",
        "            last_poll=last_poll,\n",
        "",
        "test_poller.py -k last_poll",
    ),
    Mutant(
        "what a decoder of commands raises refuses the command",
        "commands/decode.py",
        "    except BadCommand:\n        raise\n    except Exception as error:",
        "    except BadCommand:\n        raise\n    except ValueError as error:",
        "test_executor.py -k raises",
    ),
    Mutant(
        "polls and requests under way are bounded",
        "commands/executor.py",
        "if len(self._running) >= MAX_RUNNING and",
        "if False and",
        "test_executor.py -k bounded",
    ),
    Mutant(
        "times of commands are bounded",
        "commands/decode.py",
        "    if not 0 <= ms < MAX_TIME_MS:",
        "    if False:",
        "test_commands.py -k time",
    ),
    Mutant(
        "quantities are bounded",
        "config/units.py",
        "if number is None or not 0 <= number <= maximum:",
        "if number is None or number < 0:",
        "test_config.py -k quantity",
    ),
    Mutant(
        "a name that fits no topic",
        "mqtt/topics.py",
        'level = address.name if is_level else "unknown"',
        "level = address.name",
        "test_polling_manager.py -k fits_no_topic",
    ),
    Mutant(
        "values that vanish from many are held",
        "polling/poll_records.py",
        "        self._held = held\n",
        "        self._held = {}\n",
        "test_poll_runner.py -k nothing_but_ids",
    ),
    Mutant(
        "held values are looked at again in each listing",
        "polling/poll_records.py",
        'fields=fields), b"")',
        "fields=fields), record.hash)",
        "test_poll_runner.py -k held_values",
    ),
    Mutant(
        "values are held for a time",
        "polling/vanishing.py",
        " and now - held.get(name, now) < rule.hold_for * 1000",
        "",
        "test_vanishing.py",
    ),
    Mutant(
        "presence that is not believed stays due",
        "polling/poll_records.py",
        "for reading in due if reading.id not in unbelieved]",
        "for reading in due]",
        "test_bounds.py -k another_decade",
    ),
    Mutant(
        "an empty text is no value where many come at once",
        "polling/vanishing.py",
        "if after.get(name) in _NO_VALUE\n",
        "if name not in after\n",
        "test_vanishing.py",
    ),
    Mutant(
        "what belongs to a held field is held with it",
        "polling/vanishing.py",
        "        kept.update(POSITION)\n",
        "        pass\n",
        "test_vanishing.py",
    ),
    Mutant(
        "a number that became unlimited did not vanish",
        "polling/vanishing.py",
        '        and after.get(traits.no_limit.get(name, "")) is not True\n',
        "",
        "test_vanishing.py",
    ),
    # ── doors ──────────────────────────────────────────────────────────────────────────────────
    Mutant("secrets in logs", "cli/logs.py", "text = self._masks.mask_text(text)", "pass", "test_logs.py"),
    Mutant(
        "a line that repeats is counted",
        "cli/repeats.py",
        "            self._texts[text] = _Repeated(now, record)",
        "            pass",
        "test_logs.py",
    ),
    Mutant(
        "lines of one place are bounded",
        "cli/repeats.py",
        "repeated is not source or source.written >= MAX_LINES_PER_SOURCE",
        "repeated is not source",
        "test_logs.py",
    ),
    Mutant(
        "the last count waits for no other line",
        "cli/repeats.py",
        "            self._write_counts(first_written_by=self._clock() - MINUTE_S)\n",
        "",
        "test_logs.py",
    ),
    Mutant(
        "the connection idle longest makes room",
        "web/connections.py",
        "                self._cut(next(iter(self._idle)))",
        "                self._cut(next(reversed(self._idle)))",
        "test_connections.py -k idle",
    ),
    Mutant(
        "idle connections are cut",
        "web/connections.py",
        "            self.cut_idle(MAX_IDLE_S)",
        "            pass",
        "test_connections.py -k idle_connection",
    ),
    Mutant(
        "accepting pauses without descriptors",
        "web/connections.py",
        "            await asyncio.sleep(ACCEPT_PAUSE_S)\n",
        "",
        "test_connections.py -k pauses",
    ),
    Mutant(
        "a request under way is not cut",
        "web/connections.py",
        "        self._idle.pop(transport, None)\n",
        "",
        "test_connections.py -k under_way",
    ),
    Mutant(
        "no plain password beyond loopback",
        "config/rules.py",
        "if mqtt.password and not mqtt.tls.enabled and",
        "if False and",
        "test_config.py",
    ),
    Mutant(
        "no plain HTTP beyond loopback",
        "config/rules.py",
        'elif scheme == "http" and not config.api.allow_http and not _is_loopback(host):',
        "elif False:",
        "test_config.py",
    ),
    Mutant(
        "secrets in errors of the API",
        "api/answers.py",
        "masks.mask_text(message).split()",
        "message.split()",
        "test_api.py",
    ),
    # ── clocks ─────────────────────────────────────────────────────────────────────────────────
    Mutant(
        "clocks: fresh goes false by the clock",
        "polling/call_states.py",
        " or (b'\"fresh\":true' in stored and not self._is_fresh(runtime))",
        "",
        "test_clock.py -k fresh_goes_false",
    ),
    Mutant("clocks: a time ahead of now", "decode/bounds.py", " <= self.latest", "", "test_bounds.py"),
    Mutant("clocks: a time before 2019", "decode/bounds.py", "EARLIEST <= ts <= ", "ts <= ", "test_bounds.py"),
    Mutant(
        "clocks: the later of two bounds a time",
        "api/client.py",
        "Bounds(max(self.now(), self._clock.now())",
        "Bounds(min(self.now(), self._clock.now())",
        "test_bounds.py -k keeps_nothing_out",
    ),
    Mutant(
        "clocks: a Date before 2019 is none",
        "api/answers.py",
        "return date if date >= EARLIEST else None",
        "return date",
        "test_bounds.py -k before_2019",
    ),
    Mutant(
        "clocks: a newest sample that is not believed heals",
        "polling/samples.py",
        "    if past.ts <= latest:\n",
        "    if True:\n",
        "test_bounds.py",
    ),
    Mutant(
        "clocks: a window that is not believed heals",
        "polling/poll_report.py",
        "progress.window_end if progress.window_end <= latest else max(newest, 0)",
        "progress.window_end",
        "test_silence.py -k wrong_clock",
    ),
    Mutant(
        "clocks: a horizon that is not believed heals",
        "polling/poll_report.py",
        "horizon=min(progress.horizon, max(newest, 0))",
        "horizon=progress.horizon",
        "test_bounds.py -k heals",
    ),
    Mutant(
        "clocks: a record's time that is not believed",
        "polling/poll_records.py",
        "if ts is not None and not bounds.has(ts):",
        "if False:",
        "test_bounds.py -k last_seen",
    ),
    Mutant(
        "clocks: a sample without a time never goes back",
        "polling/samples.py",
        "max(context.now, past.ts + 1)",
        "context.now",
        "test_bounds.py -k without_a_time",
    ),
    Mutant(
        "clocks: rows have a steady time",
        "store/store.py",
        "now, wall_time = self._connections.steady.now(), ",
        "now, wall_time = self._connections.clock.now(), ",
        "test_clock.py -k backlog_is",
    ),
    Mutant(
        "clocks: steady time goes on over a restart",
        "clock.py",
        "if before.boot == clock.boot and clock.boot and elapsed >= before.elapsed:",
        "if False:",
        "test_clock.py",
    ),
    Mutant(
        "clocks: another start of the machine is another",
        "clock.py",
        "if before.boot == clock.boot and clock.boot and",
        "if",
        "test_clock.py",
    ),
    Mutant(
        "clocks: what is older than the machine's start has no known age",
        "clock.py",
        "if moment >= max(1, self.began) else None",
        "if moment else None",
        "test_clock.py",
    ),
    Mutant(
        "clocks: a hold is measured in steady time",
        "polling/missing_records.py",
        "listing, now = self._listing, self._store.steady.now()",
        "listing, now = self._listing, self._context.now()",
        "test_clock.py -k hold_last",
    ),
    Mutant(
        "clocks: a wrong age of an older version begins anew",
        "store/database.py",
        "for statement in _BEGIN_STEADY_TIME if before is None else ():",
        "for statement in ():",
        "test_clock.py -k older_version",
    ),
    # ── silence, and the hour that comes twice ─────────────────────────────────────────────────
    Mutant(
        "silence: what was missed is made up for",
        "polling/poll_report.py",
        "for skipped, ids in await self._skipped_windows(first):",
        "for skipped, ids in ():",
        "test_silence.py",
    ),
    Mutant(
        "silence: the window begins at the newest sample",
        "polling/time_windows.py",
        "start = newest - lateness if earlier - (newest - lateness) <= steps * length else start",
        "pass",
        "test_silence.py -k never_later",
    ),
    Mutant(
        "silence: nothing later than the newest sample is forgotten",
        "polling/time_windows.py",
        "min(start or 0, oldest, known)",
        "min(start or 0, oldest)",
        "test_silence.py",
    ),
    Mutant(
        "twice: the rows run through both hours",
        "decode/repeated_hour.py",
        "[choice for choice in choices if choice == sorted(choice)]",
        "choices",
        "test_repeated_hour.py",
    ),
    Mutant(
        "twice: what has not come yet is not meant",
        "decode/repeated_hour.py",
        " or second > known.latest",
        "",
        "test_repeated_hour.py",
    ),
    Mutant(
        "twice: the newest sample is not lost",
        "decode/repeated_hour.py",
        "if max(choice) >= known.newest]",
        "if True]",
        "test_repeated_hour.py",
    ),
    Mutant(
        "twice: what is not sure is told",
        "polling/poll_report.py",
        "        listing.unsure += decoded.unsure\n",
        "",
        "test_repeated_hour.py -k cannot_be_told",
    ),
    # ── the console ────────────────────────────────────────────────────────────────────────────
    Mutant(
        "console: a name that is not its own is refused",
        "web/access.py",
        "if visitor.is_ingress or is_known_name(name, rules):",
        "if True:",
        "test_console_access.py",
    ),
    Mutant(
        "console: Origin must be its own address",
        "web/access.py",
        'if "origin" in facts.headers and not visitor.is_ingress and not _is_own_origin(facts):',
        "if False:",
        "test_console_access.py",
    ),
    Mutant(
        "console: a page of another site is refused",
        "web/access.py",
        'if "sec-fetch-site" in facts.headers and facts.header("sec-fetch-site") not in allowed:',
        "if False:",
        "test_console_access.py",
    ),
    Mutant(
        "console: a token is compared",
        "web/access.py",
        'return rules.token is not None and hmac.compare_digest(given.encode(errors="replace"), rules.token.encode())',
        "return rules.token is not None",
        "test_console_access.py",
    ),
    Mutant(
        "console: without a token only this host gets in",
        "web/gate.py",
        "            return visitor.is_this_host\n",
        "            return True\n",
        "test_console_access.py",
    ),
    Mutant(
        "console: a proxy on this host is not this host",
        "web/access.py",
        "is_loopback_name(name) and not _has_proxy_header(facts.headers)",
        "is_loopback_name(name)",
        "test_console_access.py",
    ),
    Mutant(
        "console: guessing ends",
        "web/gate.py",
        "        self._guesses.add(visitor.key, now)\n",
        "",
        "test_console_access.py",
    ),
    Mutant(
        "console: a command needs the header of its own",
        "web/access.py",
        'if facts.header(CONSOLE_HEADER) != "1" and not has_right_bearer:',
        "if False:",
        "test_console_access.py",
    ),
    Mutant(
        "console: the ingress path alone signs nobody in",
        "web/access.py",
        "if address is not None and address == rules.ingress and _INGRESS_PATH.fullmatch(ingress_path):",
        "if address is not None and _INGRESS_PATH.fullmatch(ingress_path):",
        "test_console_access.py",
    ),
    Mutant(
        "live: of two messages of a row the first has no id",
        "web/live_messages.py",
        "tree.event_id(row.seq) if number == len(parts) else None",
        "tree.event_id(row.seq)",
        "test_console_live.py",
    ),
    Mutant(
        "live: what is new queues while what was missed is read",
        "web/live.py",
        "            listener.through = self._through\n",
        "            listener.through = self._through = await self._queries.run(Queries.head)\n",
        "test_console_live.py",
    ),
    Mutant(
        "live: a slow reader is closed",
        "web/live.py",
        "if len(self._waiting) + len(messages) > MAX_BEHIND:",
        "if False:",
        "test_console_live.py",
    ),
    Mutant(
        "live: a stream ends with its session",
        "web/streaming.py",
        "if not self._is_signed_in(request):",
        "if False:",
        "test_console_live.py",
    ),
    Mutant(
        "console: a refused command is not queued",
        "web/command_routes.py",
        "if refusal is not None:",
        "if False:",
        "test_console_commands.py -k queued",
    ),
    Mutant(
        "console: a command is stored with its source",
        "web/command_routes.py",
        'source="console"',
        'source="mqtt"',
        "test_console_commands.py -k late",
    ),
    Mutant(
        "console: nothing is changed where it is read-only",
        "web/access.py",
        "if rules.read_only and facts.method not in READING and facts.path != SESSION:",
        "if False:",
        "test_console_access.py",
    ),
    Mutant(
        "console: the inline script is named by its hash",
        "web/assets.py",
        'inline = f" \'sha256-{script_hash}\'" if script_hash else ""',
        'inline = ""',
        "test_console_files.py -k version",
    ),
    Mutant(
        "console: its token is masked in the log",
        "cli/main.py",
        "config.mqtt.password, config.console.token)",
        "config.mqtt.password)",
        "test_console_access.py",
    ),
    # ── the console's page, with a Chromium ─────────────────────────────────────────────────────
    Mutant(
        "page: only the rows in view are drawn",
        "web/static/window.js",
        "Math.min(MAX_ROWS - 2 * MARGIN_ROWS, Math.ceil(innerHeight / height) + 1)",
        "count",
        "-m browser console/test_fleet.py -k few_rows",
    ),
    Mutant(
        "page: a cell is no formula for a spreadsheet",
        "web/static/ui.js",
        "if (/^[=+\\-@\\t\\r]/.test(text) && !isNumber(text)) text = `'${text}`;",
        "",
        "-m browser console/test_fleet.py -k csv",
    ),
    Mutant(
        "page: what is missing comes last in both directions",
        "web/static/fleet.js",
        "if (a.key === null || b.key === null) return a.key === null ? 1 : -1;",
        "",
        "-m browser console/test_fleet.py -k sorts",
    ),
    Mutant(
        "page: a value that changes does not move its row",
        "web/static/fleet.js",
        "if (!keys.has(row.imei)) keys.set(",
        "keys.set(",
        "-m browser console/test_fleet.py -k in_place",
    ),
    Mutant(
        "page: a hidden page has no stream",
        "web/static/live.js",
        "if (document.hidden) close();",
        "if (document.hidden) return;",
        "-m browser console/test_live.py -k hidden",
    ),
)


def misfits(root: Path = ROOT) -> list[str]:
    """What of the table does not fit the source any more: a text that is not there exactly once, a file that is not."""
    wrong = []
    for mutant in TABLE:
        path = root / "oneweb_bridge" / mutant.file
        count = path.read_text().count(mutant.text) if path.exists() else 0
        if count != 1:
            wrong.append(f"{mutant.guard}: its text stands {count} times in {mutant.file}")
        wrong += [f"{mutant.guard}: {n} is not there" for n in test_files(mutant) if not (root / n).exists()]
    return wrong


def test_files(mutant: Mutant) -> list[str]:
    """The files of its tests, below the root."""
    return [f"tests/{word}" for word in mutant.tests.split() if word.endswith(".py")]


class Outcome(msgspec.Struct, frozen=True):
    """What the tests said: whether they ran at all, and the one that failed first."""

    ran: bool
    failed: str = ""


def tried(mutant: Mutant | None, tests: str, tree: Path) -> Outcome:
    """Runs tests in a copy of the tree, without the guard of a mutant."""
    if mutant is None:
        return _run(tests, tree)
    path = tree / "oneweb_bridge" / mutant.file
    whole = path.read_text()
    path.write_text(whole.replace(mutant.text, mutant.without))
    try:
        return _run(tests, tree)
    finally:
        path.write_text(whole)


def _run(tests: str, tree: Path) -> Outcome:
    words = [f"tests/{word}" if word.endswith(".py") else word for word in tests.split()]
    line = [sys.executable, "-m", "pytest", "-x", "-q", "-n", "0", "-p", "no:cacheprovider", *words]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        ended = subprocess.run(line, cwd=tree, env=environment, check=False, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return Outcome(ran=True, failed="did not end")
    failed = re.search(r"^(?:FAILED|ERROR) tests/(\S+)", ended.stdout.decode(), re.MULTILINE)
    return Outcome(ran=ended.returncode in (0, 1), failed=failed[1] if failed else "")


def campaign(chosen: Sequence[Mutant]) -> int:
    """Tries all and prints the table. Returns how many guards nobody missed."""
    missed = 0
    with tempfile.TemporaryDirectory(prefix="oneweb-mutants-") as place, ThreadPoolExecutor(WORKERS) as pool:
        trees: queue.SimpleQueue[Path] = queue.SimpleQueue()
        for number in range(WORKERS):
            trees.put(Path(shutil.copytree(ROOT, Path(place) / str(number), ignore=_LEFT)))

        def try_in_free_tree(mutant: Mutant | None, tests: str) -> Outcome:
            tree = trees.get()
            try:
                return tried(mutant, tests, tree)
            finally:
                trees.put(tree)

        # A test that fails by itself would seem to notice everything.
        sound = list(pool.map(lambda tests: try_in_free_tree(None, tests), names := sorted({m.tests for m in chosen})))
        for name, outcome in zip(names, sound, strict=True):
            if outcome.failed or not outcome.ran:
                print(f"with all guards in place {name} fails: {outcome.failed}")
                return 1
        for mutant, outcome in zip(chosen, pool.map(lambda m: try_in_free_tree(m, m.tests), chosen), strict=True):
            caught = bool(outcome.ran and outcome.failed)
            missed += not caught
            word = "caught" if caught else "NOT CAUGHT" if outcome.ran else "DOES NOT RUN"
            print(f"{mutant.guard:52} {word:11} {outcome.failed or mutant.tests}", flush=True)
    print(f"\n{len(chosen)} guards, {missed} not caught")
    return missed


def main(words: Iterable[str]) -> int:
    """The exit code: 0 when each guard is missed by some test."""
    if wrong := misfits():
        print("\n".join(wrong))
        return 1
    wanted = list(words)
    chosen = [m for m in TABLE if not wanted or any(word in m.guard for word in wanted)]
    return 1 if campaign(chosen) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
