"""Where else a call may be: other paths for one that the API does not know, in the order of their likelihood. Pure."""

import re
from collections.abc import Iterator

MAX_PLACES = 48
"""Paths that are tried for one call."""
_VERSION = re.compile(r"v\d+")
_SERVICES = {
    "userTerminal": ("resourceInventory", "resourceInventoryManagement"),
    "product": ("productInventory", "productInventoryManagement", "productinventory"),
    "organization": ("partyManagement", "party"),
    "geographicSite": ("geographicSiteManagement", "geographicSite", "site"),
    "usageConsumptionReport": ("usageConsumption", "usageConsumptionManagement"),
}
"""Resource -> what its service may be called."""
_RESOURCES = {
    "geographicSite": ("site",),
    "usageConsumptionReport": ("usageConsumption", "queryUsageConsumption", "usageReport"),
    "organization": ("organisation", "party"),
    "userTerminal": ("terminal", "ut", "resource"),
}
"""Resource -> other names of it."""


def other_paths(path: str, hints: list[tuple[str, str]]) -> list[str]:
    """Paths to try instead of one that is not there. `hints` are pairs of such a path and where its call is."""
    places = dict.fromkeys(_transferred(path, hints))
    places.update(dict.fromkeys(_variants(path)))
    places.pop(path, None)
    return list(places)[:MAX_PLACES]


def _transferred(path: str, hints: list[tuple[str, str]]) -> Iterator[str]:
    """What the same difference as at another call makes of a path."""
    for before, after in hints:
        if before.rpartition("/")[0] == path.rpartition("/")[0]:
            yield after.rpartition("/")[0] + "/" + path.rpartition("/")[2]
        old, new = before.split("/"), after.split("/")
        if len(old) == len(new):
            changed = dict(zip(old, new, strict=True))
            yield "/".join(changed.get(part, part) for part in path.split("/"))


def _variants(path: str) -> Iterator[str]:
    parts = path.strip("/").split("/")
    version = next((i for i, part in enumerate(parts) if _VERSION.fullmatch(part)), None)
    if version is None:
        yield from ("/" + "/".join([*parts[:-1], name]) for name in _spellings(parts[-1]))
        return
    service, number, rest = parts[:version], parts[version], parts[version + 1 :]
    versions = [f"v{n}" for n in (1, 2, 3, 4) if f"v{n}" != number]
    names = [[*rest[:-1], name] for name in _spellings(rest[-1])] if rest else [rest]
    services = [service, *_services(service, rest[-1] if rest else "")]
    for other in versions:
        yield _joined(service, other, rest)
    for name in names:
        yield _joined(service, number, name)
    for other_service in services[1:]:
        for other in (number, *versions):
            yield _joined(other_service, other, rest)
    for name in names[:3]:
        for other in versions:
            yield _joined(service, other, name)
    for name in names[:3]:
        yield from (_joined(other_service, number, name) for other_service in services[1:4])


def _joined(service: list[str], version: str, rest: list[str]) -> str:
    return "/" + "/".join(part for part in (*service, version, *rest) if part)


def _services(service: list[str], resource: str) -> Iterator[list[str]]:
    """Without the service's prefix, with another name of it, and below /api."""
    if len(service) > 1:
        yield service[-1:]
    for name in _SERVICES.get(resource, ()):
        if [name] != service[-1:]:
            yield [*service[:-1], name]
            if len(service) > 1:
                yield [name]
    yield []
    if service[:1] != ["api"]:
        yield ["api", *service]


def _spellings(name: str) -> Iterator[str]:
    """Singular and plural, and other ways to write a name."""
    plural = re.sub(r"y$", "ie", name) + "s"
    yield name.removesuffix("s") if name.endswith("s") else plural
    for word in (name, plural):
        parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", word)
        if len(parts) > 1:
            yield from ("-".join(parts).lower(), "".join(parts).lower(), "_".join(parts).lower())
        yield word[:1].upper() + word[1:]
    for other in _RESOURCES.get(name, ()):
        yield from (other, f"{other}s")
