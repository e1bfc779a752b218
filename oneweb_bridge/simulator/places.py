"""Where the fleet is: invented sites in real towns, invented companies."""

from typing import NamedTuple


class Town(NamedTuple):
    """A town with its country and coordinates."""

    name: str
    country: str
    code: str
    latitude: float
    longitude: float


TOWNS = (
    Town("Alesund", "NO", "ALE", 62.4722, 6.1549),
    Town("Aberdeen", "GB", "ABZ", 57.1497, -2.0943),
    Town("Punta Arenas", "CL", "PUQ", -53.1638, -70.9171),
    Town("Tromso", "NO", "TOS", 69.6492, 18.9553),
    Town("Reykjavik", "IS", "REK", 64.1466, -21.9426),
    Town("Nuuk", "GL", "GOH", 64.1814, -51.6941),
    Town("Halifax", "CA", "YHZ", 44.6488, -63.5752),
    Town("Anchorage", "US", "ANC", 61.2181, -149.9003),
    Town("Rotterdam", "NL", "RTM", 51.9244, 4.4777),
    Town("Bergen", "NO", "BGO", 60.3913, 5.3221),
    Town("Luderitz", "NA", "LUD", -26.6481, 15.1538),
    Town("Darwin", "AU", "DRW", -12.4634, 130.8456),
    Town("Hobart", "AU", "HBA", -42.8821, 147.3272),
    Town("Iquitos", "PE", "IQT", -3.7437, -73.2516),
    Town("Ushuaia", "AR", "USH", -54.8019, -68.3030),
    Town("Torshavn", "FO", "FAE", 62.0107, -6.7741),
    Town("Lerwick", "GB", "LSI", 60.1530, -1.1493),
    Town("Kirkenes", "NO", "KKN", 69.7271, 30.0450),
    Town("Dutch Harbor", "US", "DUT", 53.8898, -166.5422),
    Town("Walvis Bay", "NA", "WVB", -22.9576, 14.5053),
    Town("Port Hedland", "AU", "PHE", -20.3107, 118.5878),
    Town("Thurso", "GB", "THS", 58.5936, -3.5221),
)

PURPOSES = (
    "fish farm",
    "harbour",
    "pilot station",
    "mine camp",
    "wind farm",
    "clinic",
    "ranger post",
    "ferry terminal",
)
STREETS = ("Harbour Road", "Moloveien", "Quay Street", "Station Road", "North Road", "Beacon Lane")

PARTNERS = (
    "Northlight Networks",
    "Meridian Satcom",
    "Polar Relay",
    "Bluearc Connect",
    "Tidewater Telecom",
    "Skerry Networks",
    "Longline Satcom",
    "Fathom Links",
    "Halyard Telecom",
    "Outpost Networks",
    "Stratus Reach",
    "Compass Relay",
)
FIRST_NAMES = (
    "Fjord",
    "Bluewater",
    "Harbour",
    "Highland",
    "Pelagic",
    "Aurora",
    "Granite",
    "Westwind",
    "Glacier",
    "Lighthouse",
    "Cormorant",
    "Saltmarsh",
    "Boreal",
)
LAST_NAMES = (
    "Salmon Farms",
    "Drilling",
    "Pilots Cooperative",
    "Shipping",
    "Mining",
    "Ferries",
    "Research",
    "Rescue",
    "Energy",
    "Logistics",
    "Fisheries",
)
SHIPS = ("MV Kestrel", "MV Petrel", "MV Gannet", "FV Skua", "MV Fulmar", "RV Tern", "MV Puffin", "SV Dunlin")
