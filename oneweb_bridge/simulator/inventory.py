"""The inventories' objects in the default shape: terminals, components, products, organizations, sites."""

from typing import Any

from .changes import Changes
from .clock import rfc3339
from .draws import About, between, mix
from .fleet import EXTRA_PRODUCTS, PUBLIC_HOST, Fleet
from .life import Life
from .options import Shape
from .places import STREETS
from .plans import characteristics, plan_of

Json = dict[str, Any]

_COMPONENTS = (
    # type, how many levels between two versions of it, how an Inster and how an Intellian terminal write it
    ("AIM", 3, "1.0.0.{}", "1.0.0.{}", 170),
    ("CNX", 2, "420.204.1.{:03d}", "420.204.1.{:03d}", 10),
    ("EGR", 5, "2.1.{}", "2.1.{}", 3),
    ("MDM", 2, "4.0.1.{}RP", "4.0.1.{}RP", 301),
    ("MIM", 10**9, "0.0.0", "0.0.0", 0),
    ("SSM", 1, "SSMv2_5.0.{}", "SSM_5.0.{}", 60),
    ("SSM_BSP", 4, "SSM_BSP_4.0.{}", "SSM_BSP_4.0.{}", 20),
    ("UT", 1, "INSTER-RA01_2.0.{}", "OW-IESA_2.0.0.{}", 1),
)


class Inventory:
    """Builds one object at a time, as it is at a time."""

    def __init__(self, fleet: Fleet, life: Life, changes: Changes, paths: Shape) -> None:
        self._fleet = fleet
        self._life = life
        self._changes = changes
        self._shape = paths
        self._parties: dict[tuple[int, int], list[Json]] = {}  # neighbours in a listing share their parties
        self._terminal_href = PUBLIC_HOST + paths.terminal_path + "/"
        self._product_href = PUBLIC_HOST + paths.product_path + "/"
        self._organization_href = PUBLIC_HOST + paths.organization_path + "/"
        self._site_href = PUBLIC_HOST + paths.site_path + "/"

    # terminals

    def terminal(self, index: int, at: float) -> Json:
        """A userTerminal without its components."""
        fleet, imei = self._fleet, self._fleet.imei(index)
        started = fleet.started(index)
        state, seen = self._life.condition(index, at)
        built: Json = {
            "id": imei,
            "href": self._terminal_href + imei,
            "@type": "UserTerminal",
            "@baseType": "PhysicalResource",
            "name": fleet.terminal_name(index),
            "imei": imei,
            "imsi": "001010" + imei[6:15].rjust(9, "0"),
            "serialNumber": self._serial_number(index),
            "resourceState": state,
            "startDate": rfc3339(started),
            "firstSeenDate": rfc3339(started + 60 + mix(fleet.seed, About.DATES, index, 1) % 840),
            "lastSeenDate": rfc3339(seen),
            **self._make(index),
            "relatedParty": self._parties_of(fleet.customer_of(fleet.site_of(index))),
            "place": self._place(index),
            "product": self._product_refs(index),
            "location": self._location(index, at),
        }
        if self._shape.more_fields:
            built["networkStatus"] = "inService" if state == "online" else "outOfService"
            built["firmwareVersion"] = f"{self._life.firmware_level(index, at) // 4 + 1}.0"
        return self._changes.apply_to("terminals", index, built)

    def _is_intellian(self, index: int) -> bool:
        return mix(self._fleet.seed, About.FIXED, index, 1) % 3 == 0

    def _serial_number(self, index: int) -> str:
        if self._is_intellian(index):
            return f"OW70-{100_000 + index:06d}"
        return f"INS-RA01-{4000 + index:06d}"

    def _make(self, index: int) -> Json:
        """Hardware version and manufacturer, which some terminals lack."""
        made: Json = {}
        if index % 10 != 8:
            major = "1.4" if self._is_intellian(index) else "2.0"
            made["hardwareVersion"] = f"HW-{major}.{mix(self._fleet.seed, About.FIXED, index, 2) % 4 + 1}"
        if index % 10 != 6:
            made["manufacturer"] = "Intellian" if self._is_intellian(index) else "Inster"
        return made

    def _place(self, index: int) -> Json:
        site = self._fleet.site_of(index)
        if self._fleet.has_unlisted_site(index):
            return {
                "id": f"SITE-{900_000 + index}",
                "externalId": f"ZZ-XXX-{index}",
                "role": "installation site",
            }
        return {
            "id": self._fleet.site_id(site),
            "externalId": self._fleet.site_code(site),
            "name": self._fleet.site_name(site),
            "role": "installation site",
        }

    def _product_refs(self, index: int) -> list[Json]:
        if self._fleet.is_spare(index) or index in self._changes.removed.get("products", ()):
            return []
        product = self._fleet.product_id(index)
        return [{"id": product, "href": self._product_href + product}]

    def _location(self, index: int, at: float) -> Json | None:
        """GeoJSON with the position when it was last seen; some terminals may never have found out where they are."""
        is_placed = not self._shape.null_locations or index in self._changes.positions
        if index % 40 == 17 and not is_placed:
            return None
        if index % 40 == 18 and not is_placed:
            return {"type": "FeatureCollection", "features": []}
        geometry: Json | None = None
        if index % 40 != 22 or is_placed:
            latitude, longitude, elevation = self._life.position_seen(index, at)
            height = [] if elevation is None else [elevation]
            geometry = {"type": "Point", "coordinates": [longitude, latitude, *height]}
        feature = {"type": "Feature", "geometry": geometry, "properties": {}}
        return {"type": "FeatureCollection", "features": [feature]}

    def _parties_of(self, customer: int) -> list[Json]:
        """Distribution partner, sub-distributor if any, end customer; not to be changed by who gets it."""
        fleet, key = self._fleet, (customer, self._changes.revision)
        if key in self._parties:
            return self._parties[key]
        if len(self._parties) > 1000:
            self._parties.clear()
        *resellers, partner = fleet.lineage(customer)
        chain = [(partner, "Distribution Partner")]
        chain += [(reseller, "Sub-Distributor") for reseller in resellers]
        chain.append((customer, "End Customer"))
        parties = self._parties[key] = [
            {"id": fleet.organization_id(number), "name": fleet.organization_name(number), "role": role}
            for number, role in chain
        ]
        return parties

    # components

    def components(self, index: int, at: float) -> Json:
        """A userTerminal with its components alone."""
        built: Json = {"id": self._fleet.imei(index)}
        listed = self._component_list(index, at)
        if listed is not None:
            built["component"] = listed
        return built

    def _component_list(self, index: int, at: float) -> list[Json] | None:
        """Eight components; a few terminals never reported them, and some keep a factory bundle besides."""
        if index % 40 == 21 and index not in self._changes.firmware:
            return [] if index % 80 == 21 else None
        level, is_intellian = self._life.firmware_level(index, at), self._is_intellian(index)
        versions = {
            ("main", kind): (intellian if is_intellian else inster).format(first + level // step % 60)
            for kind, step, inster, intellian, first in _COMPONENTS
        }
        if index % 5 == 0:
            versions["factory", "UT"] = "OW-IESA_1.9.0.1" if is_intellian else "INSTER-RA01_1.9.1"
        versions.update(self._changes.firmware.get(index, {}))
        return [{"partition": partition, "type": kind, "version": text} for (partition, kind), text in versions.items()]

    # products

    def product(self, index: int, at: float) -> Json:
        """A product; that of a terminal has the terminal's index."""
        fleet, plan, product_id = self._fleet, plan_of(index), self._fleet.product_id(index)
        status, changed = self._changes.statuses.get(index, (self._status(index), 0.0))
        started = fleet.started(index) // 86400 * 86400
        built: Json = {
            "id": product_id,
            "href": self._product_href + product_id,
            "@type": "Product",
            "name": self._changes.names.get(("products", index), plan.name),
            "description": plan.description,
            "isBundle": plan.is_bundle,
            "status": status,
            "startDate": rfc3339(started),
            "billingStartDate": rfc3339(started),
            "lastUpdate": rfc3339(max(changed, at // 900 * 900)),
            "productSpecification": {
                "id": "PS-SITE-CONNECTIVITY",
                "name": "Site Connectivity",
                "version": "1",
            },
            "place": self._product_place(index),
            "relatedParty": self._product_parties(index),
            "realizingResource": self._realizing(index),
            "characteristic": characteristics(plan, fleet.seed, index),
        }
        return self._changes.apply_to("products", index, built)

    def _status(self, index: int) -> str:
        return {3: "suspended", 103: "pendingActive", 153: "terminated"}.get(index % 200, "active")

    def _product_place(self, index: int) -> list[Json]:
        if index >= EXTRA_PRODUCTS:
            return []
        site = self._fleet.site_of(index)
        return [
            {
                "id": self._fleet.site_id(site),
                "name": self._fleet.site_name(site),
                "role": "installation site",
                "@referredType": "GeographicSite",
            }
        ]

    def _product_parties(self, index: int) -> list[Json]:
        """As at the terminal; one in fifty names an end customer that no list shows."""
        site = self._fleet.site_of(index) if index < EXTRA_PRODUCTS else index % self._fleet.sites
        parties = list(self._parties_of(self._fleet.customer_of(site)))
        if index % 50 == 9:
            parties[-1] = {
                "id": f"ACC-{900_000 + index}",
                "name": "Unlisted Customer",
                "role": "End Customer",
            }
        return [{**party, "@referredType": "Organization"} for party in parties]

    def _realizing(self, index: int) -> list[Json]:
        """The terminal; of the products without one, every second still names a terminal long gone."""
        if index < EXTRA_PRODUCTS:
            named = {"id": self._fleet.imei(index), "name": self._fleet.terminal_name(index)}
        elif index % 2:
            named = {"id": "359235190000015", "name": "Returned terminal"}
        else:
            return []
        return [{**named, "role": "userTerminal", "@referredType": "UserTerminal"}]

    # organizations and sites

    def organization(self, number: int, _at: float) -> Json:
        """A distribution partner, a sub-distributor, or an end customer."""
        fleet, organization_id = self._fleet, self._fleet.organization_id(number)
        parent = fleet.parent(number)
        is_reseller = number < fleet.partners + fleet.subdistributors
        kind = "Distribution Partner" if parent is None else "Sub-Distributor" if is_reseller else "End Customer"
        built: Json = {
            "id": organization_id,
            "href": self._organization_href + organization_id,
            "type": kind,
            "tradingName": fleet.organization_name(number),
            "status": "validated",
            "isLegalEntity": True,
        }
        if parent is not None:
            above = fleet.organization_id(parent)
            link = {"id": above, "href": self._organization_href + above, "relationshipType": "customer"}
            built["organizationParentRelationship"] = link
        below = [
            {"id": fleet.organization_id(child), "relationshipType": "customer"} for child in fleet.children(number)
        ]
        if below:
            built["organizationChildRelationship"] = below
        return self._changes.apply_to("organizations", number, built)

    def site(self, site: int, _at: float) -> Json:
        """A site with address and location."""
        fleet, site_id, home = self._fleet, self._fleet.site_id(site), self._life.home(site)
        town, numbers = fleet.town(site), mix(fleet.seed, About.ADDRESS, site)
        point = {"x": f"{home.latitude:.6f}", "y": f"{home.longitude:.6f}", "z": str(home.elevation)}
        built: Json = {
            "id": site_id,
            "href": self._site_href + site_id,
            "@type": "GeographicSite",
            "name": fleet.site_name(site),
            "code": fleet.site_code(site),
            "description": "Fixed mount" if numbers % 2 else "Mast, two cabinets",
            "status": "active" if numbers % 17 else "planned",
            "address": {
                "streetNr": str(numbers % 90 + 1),
                "streetName": STREETS[numbers % len(STREETS)],
                "city": town.name,
                "postcode": f"{between(1000, 9999, fleet.seed, About.ADDRESS, site, 1):.0f}",
                "country": town.country,
            },
            "geographicLocation": {
                "id": f"LOC-{site + 1:03d}",
                "geometryType": "point",
                "spatialRef": "WGS84",
                "geometry": [point],
            },
            "relatedParty": self._site_party(site),
        }
        return self._changes.apply_to("sites", site, built)

    def _site_party(self, site: int) -> list[Json]:
        """The distribution partner; where sites name two parties, the end customer too."""
        partner, *_, customer = self._parties_of(self._fleet.customer_of(site))
        named = [partner, customer] if self._shape.more_fields else [partner]
        return [{**party, "@referredType": "Organization"} for party in named]
