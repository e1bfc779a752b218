"""Who else publishes below the base topic, and up to which row the broker has what this bridge published.

The broker's `head` says both: it names an instance, a journal and a row.
"""

import logging
from collections.abc import Mapping
from typing import Any

import aiomqtt
import msgspec

from oneweb_bridge.clock import SYSTEM
from oneweb_bridge.encoding import encode, rfc3339
from oneweb_bridge.model.heads import Place, foreign_sentence, online_sentence, owner_of, read_head
from oneweb_bridge.model.records import Message
from oneweb_bridge.model.status import Alarm
from oneweb_bridge.mqtt.broker_errors import describe_connection_error
from oneweb_bridge.mqtt.context import ConnectionContext, ForeignInstance
from oneweb_bridge.mqtt.probing import Prober
from oneweb_bridge.mqtt.purge import stray_topics
from oneweb_bridge.mqtt.sender import Sender
from oneweb_bridge.mqtt.twins import TwinConnected
from oneweb_bridge.store.journal import RestoreMark

_log = logging.getLogger("oneweb_bridge.publisher")


class HeadComparison(msgspec.Struct, frozen=True):
    """The row up to which everything is published, and that after which retained topics are to be restored."""

    cursor: int
    restore_start: int


class Handshake:
    """The first messages of one connection."""

    def __init__(self, context: ConnectionContext, sender: Sender, prober: Prober) -> None:
        self.head: Mapping[str, Any] | None = None
        """The broker's head, as it was before this connection published one."""
        self.restore_mark = RestoreMark()
        """What dropped rows left to be restored, when the head was compared."""
        self._context = context
        self._sender = sender
        self._prober = prober
        self._has_begun = False
        self._restored_backup: str | None = None

    def on_head(self, payload: bytes) -> None:
        """The head that the broker retains; only the first one of a connection is looked at."""
        if not self._has_begun:
            self._has_begun, self.head = True, read_head(payload)

    async def prove_delivery(self) -> None:
        """Nothing else is sent before a probe has come back. The head comes before it, if there is one."""
        await self._prober.prove_delivery()
        self._has_begun = True

    async def refuse_foreign_instance(self) -> None:
        """Raises ForeignInstance for the head of another instance, and TakenOver to give way to a twin."""
        context, head = self._context, self.head
        here, identity = Place(context.tree.base, context.instance), await context.journal.identity.read()
        if head is not None and owner_of(head, here, identity) == "another":
            raise await self._foreign_instance(foreign_sentence(head, context.tree.head, here))
        # Since this process published its own head, somebody else has published another under the same name.
        if head is not None and context.has_published and not identity.knows(head.get("journal")):
            await context.twins.alert_and_give_way()

    async def refuse_other(self, instance: str) -> None:
        """Raises TwinConnected or ForeignInstance for the bridge `instance`, which is online below this base."""
        context = self._context
        if instance == context.instance:
            raise TwinConnected("another bridge with this name is connected")
        raise await self._foreign_instance(online_sentence(instance, Place(context.tree.base, context.instance)))

    async def _foreign_instance(self, sentence: str) -> ForeignInstance:
        # It cannot go through the journal: nothing of the journal is published here.
        alert = Alarm(time=rfc3339(SYSTEM.now()), kind="foreign_instance", message=sentence)
        await self._sender.publish_and_wait(Message(self._context.tree.alert, encode(alert), retain=False))
        return ForeignInstance(sentence)

    async def compare_head(self, cursor: int) -> HeadComparison:
        """Compares the broker's head with the cursor. Raises ForeignInstance.

        A head of this journal may be ahead of the cursor, because a power loss set the cursor back. Where the journal
        has had those rows since before this process began, the cursor goes there.
        """
        head = self.head
        if head is not None:
            await self.refuse_foreign_instance()
            seq = head.get("seq")
            is_ours = head.get("journal") == self._context.tree.journal_id
            if isinstance(seq, int) and is_ours and cursor < seq <= await self._context.journal.identity.head_bound():
                await self._context.journal.advance(seq)
                _log.info("the broker has rows up to %d: the journal goes on there instead of at %d", seq, cursor)
                cursor = seq
        return HeadComparison(cursor, await self._restore_start(cursor))

    async def _restore_start(self, cursor: int) -> int:
        """The row after which the broker may have lost what was retained; `cursor` when nothing is lost."""
        tree, journal, head = self._context.tree, self._context.journal, self.head
        self.restore_mark = await journal.restore_mark()
        dropped = self.restore_mark.after
        if head is None:
            return 0
        seq = head.get("seq")
        if not isinstance(seq, int):
            return 0
        is_ours = head.get("journal") == tree.journal_id
        self._restored_backup = await self._detect_restored_backup(str(head.get("journal")), seq, cursor)
        lost_after = seq if is_ours and seq <= cursor else 0
        oldest = await journal.oldest()
        if 0 < lost_after < oldest - 1:
            # Rows that cleared topics or that are the newest of theirs are gone: nobody knows which.
            lost_after = 0
        return lost_after if dropped is None else min(lost_after, dropped)

    async def _detect_restored_backup(self, journal: str, seq: int, cursor: int) -> str | None:
        """What to alert when the broker has had rows that this database does not know: a backup was restored.

        A copy that `backup` made gets an id of its own when it is opened. Any other copy gets one here, because the
        numbers of the rows that it lacks come again, and an event id may not.
        """
        tree = self._context.tree
        former = dict(tree.former_journal_ids)
        if journal == tree.journal_id:
            known, is_older = cursor, seq > cursor
        elif journal in former:
            known, is_older = former[journal], False
        else:
            # Another database was here in between, maybe another copy. Where this one had published under its id, so
            # may another copy have, with other content.
            last = max(former.values(), default=0)
            known, is_older = last or cursor or seq, cursor > last
        if is_older:
            tree.rename_journal(*await self._context.journal.identity.renew(cursor))
        if seq <= known:
            return None
        return (
            f"the database ends at row {known}, but row {seq} was published: a backup was restored. Every retained "
            "topic is published again, and what happened since the backup is announced anew"
        )

    async def alert_restored_backup(self) -> None:
        """Alerts that a backup was restored, with how much of what came after it the broker still keeps."""
        if self._restored_backup is None:
            return
        context, tree = self._context, self._context.tree
        try:
            count = len(await stray_topics(context.settings, tree, context.journal))
        except aiomqtt.MqttError as error:
            _log.warning("what is left below %s could not be counted: %s", tree.base, describe_connection_error(error))
            count = 0
        left = (
            f". {count} retained topics below {tree.base} are of what the backup does not know: those that the "
            "next polls do not bring back stay until they are cleared by request/purge"
        )
        await context.callbacks.alert("database_restored", self._restored_backup + (left if count else ""))
