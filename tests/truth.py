"""An independent judge: what ought to stand on the retained topics, worked out from the simulator's truth by hand.

It shares no code with the bridge's readers, so that the two can disagree.
"""

import hashlib
import math
from typing import Any

from oneweb_bridge.simulator import Simulator

VOLATILE = {"last_seen", "last_update", "effective_date", "time", "ts", "cycle_started"}
POSITION = ("latitude", "longitude", "elevation_m")


def level(id: str) -> str:
    """An id as a topic level, after section 4 of the contract."""
    out = []
    for char in id:
        if char.isascii() and (char.isalnum() or char == "-"):
            out.append(char)
        elif char == "_":
            out.append("__")
        else:
            out += [f"_x{byte:02x}" for byte in char.encode()]
    text = "".join(out) or "_e"
    if len(text) <= 64:
        return text
    kept = ""
    pieces = []
    for char in id:
        pieces += (
            [char]
            if char.isascii() and (char.isalnum() or char == "-")
            else (["__"] if char == "_" else [f"_x{byte:02x}" for byte in char.encode()])
        )
    for piece in pieces:
        if len(kept) + len(piece) > 40:
            break
        kept += piece
    return f"{kept}_h{hashlib.sha256(id.encode()).hexdigest()[:16]}"


def _known(**fields: Any) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _party(thing: dict[str, Any], role: str) -> dict[str, Any]:
    return next((party for party in thing.get("relatedParty", []) if party.get("role") == role), {})


def terminal(thing: dict[str, Any]) -> dict[str, Any]:
    """A user terminal as its record."""
    features = (thing.get("location") or {}).get("features") or [{}]
    point = ((features[0].get("geometry") or {}).get("coordinates") or [None, None, None]) + [None]
    partner = _party(thing, "Distribution Partner") or (thing.get("relatedParty") or [{}])[0]
    customer = _party(thing, "End Customer")
    place = thing.get("place") or {}
    products = [product["id"] for product in thing["product"]] if "product" in thing else None
    return _known(
        imei=thing["id"],
        imsi=thing.get("imsi"),
        name=thing.get("name"),
        serial_number=thing.get("serialNumber"),
        state=thing.get("resourceState"),
        network_status=thing.get("networkStatus"),
        start_time=thing.get("startDate") or thing.get("firstSeenDate"),
        first_seen=thing.get("firstSeenDate"),
        last_seen=thing.get("lastSeenDate"),
        hardware_version=thing.get("hardwareVersion"),
        firmware_version=thing.get("firmwareVersion"),
        manufacturer=thing.get("manufacturer"),
        party_id=partner.get("id"),
        party_name=partner.get("name"),
        end_customer_id=customer.get("id"),
        end_customer_name=customer.get("name"),
        site_id=place.get("id"),
        site_external_id=place.get("externalId"),
        product_ids=products,
        longitude=point[0],
        latitude=point[1],
        elevation_m=point[2],
    )


def product(thing: dict[str, Any]) -> dict[str, Any]:
    """A product as its record."""
    characteristics = {c["name"]: c.get("value") for c in thing.get("characteristic", [])}
    partner, customer = _party(thing, "Distribution Partner"), _party(thing, "End Customer")
    allowance = characteristics.get("allowance")
    unlimited = None if allowance is None else allowance in ("Unlimited", "-1")

    def number(name: str) -> float | None:
        return None if characteristics.get(name) in (None, "Unlimited", "-1") else float(characteristics[name])

    return _known(
        product_id=thing["id"],
        name=thing.get("name"),
        description=thing.get("description"),
        is_bundle=thing.get("isBundle"),
        status=thing.get("status"),
        start_date=thing.get("startDate"),
        termination_date=thing.get("terminationDate"),
        billing_start_date=thing.get("billingStartDate") or thing.get("startDate"),
        last_update=thing.get("lastUpdate"),
        site_id=(thing.get("place") or [{}])[0].get("id"),
        distribution_partner_id=partner.get("id"),
        distribution_partner_name=partner.get("name"),
        end_customer_id=customer.get("id"),
        end_customer_name=customer.get("name"),
        imei=(thing.get("realizingResource") or [{}])[0].get("id"),
        allowance_gb=number("allowance"),
        allowance_unlimited=unlimited,
        overage_increment_gb=number("overageIncrement"),
        max_bandwidth_downlink_mbps=number("maxBandwidthDownlink"),
        max_bandwidth_uplink_mbps=number("maxBandwidthUplink"),
        budgeted_amount_mbps=number("budgetedAmount"),
        min_antenna_gain_dbk=number("minAntennaGain"),
        ip_static_address=characteristics.get("ipStaticAddress"),
        ip_addressing_type=characteristics.get("ipAddressingType"),
        service_grade=characteristics.get("serviceGrade"),
    )


def organization(thing: dict[str, Any]) -> dict[str, Any]:
    """An organization as its record."""
    parent = (thing.get("organizationParentRelationship") or {}).get("id")
    kind = thing["type"].lower().replace(" ", "_").replace("-", "_") if thing.get("type") else None
    return _known(
        organization_id=thing["id"],
        name=thing.get("tradingName"),
        parent_id=parent,
        status=thing.get("status"),
        kind=kind or ("end_customer" if parent else "distribution_partner"),
    )


def site(thing: dict[str, Any]) -> dict[str, Any]:
    """A site as its record."""
    address = thing.get("address") or {}
    point = ((thing.get("geographicLocation") or {}).get("geometry") or [{}])[0]
    return _known(
        site_id=thing["id"],
        name=thing.get("name"),
        description=thing.get("description"),
        code=thing.get("code"),
        status=thing.get("status"),
        related_party_id=(thing.get("relatedParty") or [{}])[0].get("id"),
        other_related_party_ids=sorted({party["id"] for party in (thing.get("relatedParty") or [])[1:]}) or None,
        address_street_nr=address.get("streetNr"),
        address_street_name=address.get("streetName"),
        address_city=address.get("city"),
        address_postcode=address.get("postcode"),
        address_state_or_province=address.get("stateOrProvince"),
        address_country=address.get("country"),
        latitude=float(point["x"]) if "x" in point else None,
        longitude=float(point["y"]) if "y" in point else None,
        elevation_m=float(point["z"]) if "z" in point else None,
    )


def components(thing: dict[str, Any]) -> dict[str, Any] | None:
    """The components of a terminal, or None when the API does not know any."""
    versions = {f"{part['partition'].lower()}/{part['type']}": part["version"] for part in thing.get("component") or []}
    return {"imei": thing["id"], "components": versions} if versions else None


def expected(api: Simulator, base: str = "oneweb") -> dict[str, dict[str, Any]]:
    """The retained records of the inventory: topic to payload. Relations, samples and usage are judged elsewhere."""
    records: dict[str, dict[str, Any]] = {}
    parts: dict[str, Any] | None
    for kind, read, entity, key in (
        ("terminals", terminal, "terminal", "imei"),
        ("products", product, "product", "product_id"),
        ("organizations", organization, "organization", "organization_id"),
        ("sites", site, "site", "site_id"),
    ):
        for thing in api.truth(kind):
            record = read(thing)
            records[f"{base}/{entity}/{level(record[key])}/state"] = record
    for thing in api.truth("components"):
        if (parts := components(thing)) is not None:
            records[f"{base}/terminal/{level(thing['id'])}/components"] = parts
    return records


def metres(first: dict[str, Any], other: dict[str, Any]) -> float:
    """A flat-earth distance, good enough for a few hundred metres."""
    north = (first["latitude"] - other["latitude"]) * 111_195
    east = (first["longitude"] - other["longitude"]) * 111_195 * math.cos(math.radians(first["latitude"]))
    return math.hypot(north, east)


def differences(retained: dict[str, Any], wanted: dict[str, dict[str, Any]], threshold: float = 100.0) -> list[str]:
    """What is wrong on the retained topics of the inventory; empty when all is as it should be."""
    inventory = {
        t: p for t, p in retained.items() if (t.endswith("/state") and "/bridge/" not in t) or t.endswith("/components")
    }
    wrong = [f"missing {topic}" for topic in wanted if topic not in inventory]
    wrong += [f"too much {topic}" for topic in inventory if topic not in wanted]
    for topic in wanted.keys() & inventory.keys():
        wrong += _differing(topic, inventory[topic], wanted[topic], threshold)
    return wrong


def _differing(topic: str, got: dict[str, Any], want: dict[str, Any], threshold: float) -> list[str]:
    names = (got.keys() | want.keys()) - VOLATILE - set(POSITION)
    wrong = [
        f"{topic} {name}: {got.get(name)!r} instead of {want.get(name)!r}"
        for name in names
        if got.get(name) != want.get(name)
    ]
    if [name in got for name in POSITION] != [name in want for name in POSITION]:
        wrong.append(f"{topic} position: {[got.get(n) for n in POSITION]} instead of {[want.get(n) for n in POSITION]}")
    elif "latitude" in want and metres(got, want) > threshold:
        wrong.append(f"{topic} is {metres(got, want):.0f} m off")
    return wrong


def broken_chains(messages: list[tuple[str, Any, bool]]) -> list[str]:
    """Events whose `from` is not the `to` before it, and ids that came with different content."""
    wrong: list[str] = []
    by_id: dict[str, Any] = {}
    last: dict[tuple[str, str], Any] = {}
    for topic, event, _ in messages:
        if "/event/" not in topic or event.get("replayed"):
            continue
        if event["id"] in by_id:
            if by_id[event["id"]] != event:
                wrong.append(f"{event['id']} came with two contents")
            continue
        by_id[event["id"]] = event
        owner = topic.rsplit("/event/", 1)[0]
        if event["type"].endswith(".removed"):
            last = {key: value for key, value in last.items() if key[0] != owner}
        for name, change in event["data"].get("changed", {}).items():
            known = last.get((owner, name), change["from"])
            if known != change["from"]:
                wrong.append(f"{owner} {name}: from {change['from']!r} after {known!r}")
            last[owner, name] = change["to"]
        if event["type"].endswith(".added"):
            last |= {(owner, name): value for name, value in event["data"]["record"].items()}
    return wrong


def steps_back(messages: list[tuple[str, Any, bool]]) -> list[str]:
    """Topics on which an older message came after a newer one (1, 2, 1): only exact repeats may (1, 1, 2)."""
    wrong: list[str] = []
    order: dict[str, list[str]] = {}
    for topic, content, _ in messages:
        if (isinstance(content, dict) and content.get("replayed")) or "/bridge/" in topic:
            continue
        text = repr(content)
        seen = order.setdefault(topic, [])
        if seen and text == seen[-1]:
            continue
        if text in seen[:-1] and "/metric/" in topic:
            wrong.append(f"{topic} went back to {text[:120]}")
        seen.append(text)
    return wrong
