"""Row 6 once more: a Node-RED flow that sends the same messages as the bridge, not one for each terminal.

Its function makes the record with the bridge's names of the fields, compares it with the one before, and sends what
the bridge sends: event and state, and for a new terminal relations and presence as well, QoS 1, all but the event
retained. It keeps the records in the flow's memory: nothing is durable, and a restart sends everything again.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import msgspec

from bench import nodered
from bench.scope import Scope
from bench.table import Row

GOALS = {"first snapshot": 0.9, "all changed": 1.2}
FUNCTION = """
const MEMBERS = {
    imsi: 'imsi', name: 'name', serial_number: 'serialNumber', state: 'resourceState', start_time: 'startDate',
    first_seen: 'firstSeenDate', last_seen: 'lastSeenDate', hardware_version: 'hardwareVersion',
    manufacturer: 'manufacturer',
};
const listed = msg.payload, imei = listed.imei, record = {imei};
for (const [name, member] of Object.entries(MEMBERS)) {
    if (listed[member] != null) record[name] = listed[member];
}
const parties = listed.relatedParty || [], place = listed.place || {};
const party = role => {
    const {id, name} = parties.find(entry => entry.role === role) || {};
    return {id, name};
};
const partner = party('Distribution Partner'), customer = party('End Customer');
Object.assign(record, {party_id: partner.id, party_name: partner.name, end_customer_id: customer.id,
    end_customer_name: customer.name, site_id: place.id, site_external_id: place.externalId,
    product_ids: (listed.product || []).map(product => product.id).sort()});
const feature = listed.location && listed.location.features[0];
if (feature) [record.longitude, record.latitude, record.elevation_m] = feature.geometry.coordinates;

const known = context.get('known') || {}, before = known[imei];
if (!before) context.set('known', known);
known[imei] = record;
const changed = {};
for (const name of Object.keys(record)) {
    if (before && name !== 'last_seen' && JSON.stringify(before[name]) !== JSON.stringify(record[name])) {
        changed[name] = {old: before[name], new: record[name]};
    }
}
if (before && !Object.keys(changed).length) return null;

const base = `nodered/terminal/${imei}`, kind = before ? 'changed' : 'added', now = new Date();
const event = {specversion: '1.0', id: `${base}:${now.getTime()}`, source: '/nodered', type: `terminal.${kind}`,
    subject: imei, time: now.toISOString(), datacontenttype: 'application/json',
    data: before ? {changed, record} : {initial: true, record}};
const messages = [{topic: `${base}/event/${kind}`, payload: event, retain: false},
    {topic: `${base}/state`, payload: record, retain: true}];
if (!before) {
    messages.push({topic: `${base}/relations`, retain: true, payload: {imei, product_ids: record.product_ids,
        site: {id: place.id, name: place.name}, distribution_partner: partner, end_customer: customer}});
    messages.push({topic: `${base}/metric/presence`, retain: true, payload: {imei, time: record.last_seen,
        ts: Date.parse(record.last_seen), first_seen: record.first_seen, last_seen: record.last_seen}});
}
return [messages];
"""


def same_messages(directory: Path, api_url: str, port: int) -> AbstractAsyncContextManager[nodered.Peer]:
    """A new Node-RED that sends them."""
    nodes = [node for node in nodered.flow(api_url, port) if node["id"] != "filter"]
    for node in nodes:
        if node["id"] == "topic":
            node |= {"func": FUNCTION, "wires": [["out"]]}
        elif node["id"] == "out":
            # What each message says.
            node["retain"] = ""
    return nodered.run_flow(directory, nodes)


async def rows(scope: Scope) -> AsyncIterator[Row]:
    """The rows of the first snapshot and of all changed. Raises server.NotInstalled."""
    terminals = scope.of(10_000)
    peers: dict[str, nodered.Made] = {"bridge": nodered.bridge, "flow": same_messages}
    shots, _ = await nodered.measured(scope.rounds, nodered.listings(terminals, tuple(GOALS)), peers)
    for scenario, goal in GOALS.items():
        faster, cost = nodered.scenario_rows(shots, scenario, terminals)
        suffix = ", which sends the same messages"
        yield msgspec.structs.replace(faster, what=faster.what + suffix, goal=goal)
        yield msgspec.structs.replace(cost, what=cost.what + ", the flow sends the same messages")
