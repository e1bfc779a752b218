"""Makes the views for people who read with SQL; see `views`."""

import logging
from collections.abc import Mapping

from oneweb_bridge.decode.catalogue import Call
from oneweb_bridge.store.connections import Connections
from oneweb_bridge.store.engine import placeholders
from oneweb_bridge.store.sqlite import DIALECT
from oneweb_bridge.store.views import VIEWS, view_statements

_log = logging.getLogger("oneweb_bridge.store")


async def make_views(connections: Connections, calls: Mapping[str, Call]) -> None:
    """Makes the views that are missing or differ from what these calls give. Raises StoreUnavailable.

    Nothing is written when all are as they should be. A table of somebody else that has the name of a view stays.
    """
    if connections.dialect is not DIALECT:
        from oneweb_bridge.store import postgres_views  # noqa: PLC0415 -- its driver is an extra

        await postgres_views.make_views(connections, calls)
        return
    statements = view_statements(calls)
    present = {
        name: (type, sql)
        for name, type, sql in await connections.rows(
            f"SELECT name, type, sql FROM sqlite_schema WHERE name IN ({placeholders(VIEWS)})", VIEWS
        )
    }
    foreign = {name for name, (type, _) in present.items() if type != "view"}
    for name in sorted(foreign):
        _log.warning("the view %s is not made: the database has something else of that name", name)
    stale = [name for name, sql in statements.items() if present.get(name) != ("view", sql) and name not in foreign]
    if stale:
        async with connections.transaction() as transaction:
            for name in stale:
                await transaction.execute(f"DROP VIEW IF EXISTS {name}")
                await transaction.execute(statements[name])
