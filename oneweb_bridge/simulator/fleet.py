"""Who is in the fleet and how things belong together. Nothing here changes with time.

A terminal has an index; everything else follows from it: its site, the site's end customer, the customer's
parent (a distribution partner, or a sub-distributor below one), and a product with the same index. Odd
cases sit at fixed remainders of the index, all of them below 25, so that a demo fleet of 25 shows each.
"""

from collections.abc import Callable, Sequence

from .changes import Changes
from .draws import About, between, mix, pick
from .options import Options
from .places import FIRST_NAMES, LAST_NAMES, PARTNERS, PURPOSES, SHIPS, TOWNS, Town

EXTRA_PRODUCTS = 500_000
"""Index of the first product that has no terminal."""
PUBLIC_HOST = "https://api.oneweb.net"
"""Host in every href: the real one, so that the bytes do not depend on the port."""

_SERIALS = 1_000_000
_ORIGIN = 1_677_628_800  # 2023-03-01, before every start time that anybody will choose


_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # digit sum of twice a digit


def luhn_digit(digits: str) -> str:
    """The check digit that makes an IMEI of 14 digits."""
    values = [ord(digit) - 48 for digit in reversed(digits)]
    return str(-(sum(_DOUBLED[value] for value in values[::2]) + sum(values[1::2])) % 10)


class Numbering:
    """A secret order of the numbers below `size`: unique, reversible, and not in sequence."""

    def __init__(self, size: int, *keys: int) -> None:
        self._size = size
        self._factor = mix(*keys, 1) % (size // 10) * 10 + (1, 3, 7, 9)[mix(*keys, 2) % 4]
        self._shift = mix(*keys, 3) % size
        self._inverse = pow(self._factor, -1, size)

    def number(self, index: int) -> int:
        """The number of an index."""
        return (index * self._factor + self._shift) % self._size

    def index(self, number: int) -> int:
        """The index of a number."""
        return (number - self._shift) * self._inverse % self._size


class Fleet:
    """Identities, names and relations of all simulated objects.

    Large because each kind of object has an id, a name and its way back from the id, and all share the same counts.
    """

    def __init__(self, options: Options, changes: Changes) -> None:
        self.seed = mix(options.seed)
        self.size = options.terminals
        self.changes = changes
        self.sites = max(1, self.size * 4 // 5)
        self.customers = max(3, self.size // 4)
        self.partners = min(len(PARTNERS), 2 + self.size // 100)
        self.subdistributors = max(1, self.partners // 2)
        self.extras = 2 + self.size // 200
        self._written: dict[int, str] = {}  # IMEIs by index: the check digit is the dearest part of a terminal
        self._imeis = Numbering(_SERIALS, self.seed, About.NUMBERING, 1)
        self._products = Numbering(100_000_000, self.seed, About.NUMBERING, 2)

    # terminals

    def imei(self, index: int) -> str:
        """15 digits with a valid Luhn digit, unless it was asked to be something else."""
        added = self.changes.added.get(index)
        if added is not None and added.imei:
            return added.imei
        known = self._written.get(index)
        if known is None:
            digits = f"35923517{self._imeis.number(index):06d}"
            known = self._written[index] = digits + luhn_digit(digits)
        return known

    def terminal_index(self, imei: str) -> int | None:
        """The index of a terminal, present or not; None for a number that is nobody's."""
        if imei in self.changes.custom_imeis:
            return self.changes.custom_imeis[imei]
        if len(imei) != 15 or not imei.isdecimal() or not imei.startswith("35923517"):
            return None
        index = self._imeis.index(int(imei[8:14]))
        known = index < self.size + len(self.changes.additions)
        return index if known and self.imei(index) == imei else None

    def is_moving(self, index: int) -> bool:
        """About a third: ships and vehicles."""
        return index % 3 == 2

    def is_spare(self, index: int) -> bool:
        """Without a product."""
        return index % 12 == 7

    def is_never_online(self, index: int) -> bool:
        """Still in its box."""
        return index % 48 == 19

    def comes_and_goes(self, index: int) -> bool:
        """Listed at times only."""
        return index % 100 == 23 and index < self.size

    def wanderers(self) -> range:
        """Those that come and go."""
        return range(23, self.size, 100)

    def terminal_name(self, index: int) -> str:
        """Unique in the fleet."""
        ordered = self.changes.names.get(("terminals", index))
        if ordered is not None:
            return ordered
        if self.is_moving(index):
            return f"{pick(SHIPS, self.seed, About.FIXED, index)} {index + 1}"
        return f"Terminal {self.town(self.site_of(index)).name} {index + 1}"

    def started(self, index: int) -> int:
        """When the terminal or its product began."""
        added = self.changes.added.get(index)
        if added is not None:
            return int(added.at)
        return _ORIGIN + int(between(0, 400 * 86400, self.seed, About.DATES, index))

    # sites

    def site_of(self, index: int) -> int:
        """The site where a terminal is installed."""
        return index * self.sites // self.size if index < self.size else index % self.sites

    def has_unlisted_site(self, index: int) -> bool:
        """Refers to a site that no list shows."""
        return index % 50 == 13

    def site_id(self, site: int) -> str:
        """`SITE-001`."""
        return f"SITE-{site + 1:03d}"

    def site_index(self, site_id: str) -> int | None:
        """The number of a site; None if unknown."""
        return _number(site_id, "SITE-", 1, self.sites, self.site_id)

    def town(self, site: int) -> Town:
        """The town of a site."""
        return TOWNS[(site + self.seed) % len(TOWNS)]

    def site_name(self, site: int) -> str:
        """The name, as it was set or invented."""
        ordered = self.changes.names.get(("sites", site))
        if ordered is not None:
            return ordered
        suffix = f" {site // len(TOWNS) + 1}" if site >= len(TOWNS) else ""
        return f"{self.town(site).name} {pick(PURPOSES, self.seed, About.ADDRESS, site)}{suffix}"

    def site_code(self, site: int) -> str:
        """The customer's own label of a site."""
        town = self.town(site)
        return f"{town.country}-{town.code}-{site + 1:02d}"

    # organizations: partners first, then sub-distributors, then end customers

    def organization_count(self) -> int:
        """How many organizations there are."""
        return self.partners + self.subdistributors + self.customers

    def organization_id(self, number: int) -> str:
        """`ACC-101` for partners, `ACC-151` for sub-distributors, `ACC-201` and up for customers."""
        if number < self.partners:
            return f"ACC-{101 + number}"
        if number < self.partners + self.subdistributors:
            return f"ACC-{151 + number - self.partners}"
        return f"ACC-{201 + number - self.partners - self.subdistributors}"

    def organization_index(self, organization_id: str) -> int | None:
        """The number of an organization; None if unknown."""
        ahead = self.partners + self.subdistributors
        for first, last, shift in (
            (0, self.partners, 101),
            (self.partners, ahead, 151 - self.partners),
            (ahead, self.organization_count(), 201 - ahead),
        ):
            number = _number(organization_id, "ACC-", shift, last, self.organization_id)
            if number is not None and number >= first:
                return number
        return None

    def organization_name(self, number: int) -> str:
        """The trading name, as it was set or invented."""
        ordered = self.changes.names.get(("organizations", number))
        if ordered is not None:
            return ordered
        if number < self.partners:
            return PARTNERS[(number + self.seed) % len(PARTNERS)]
        if number < self.partners + self.subdistributors:
            return f"{PARTNERS[(number + self.seed) % len(PARTNERS)]} Resale"
        customer = number - self.partners - self.subdistributors + self.seed
        name = f"{FIRST_NAMES[customer % len(FIRST_NAMES)]} {LAST_NAMES[customer % len(LAST_NAMES)]}"
        turn = (number - self.partners - self.subdistributors) // (len(FIRST_NAMES) * len(LAST_NAMES))
        return f"{name} {turn + 1}" if turn else name

    def parent(self, number: int) -> int | None:
        """The organization above; None for a distribution partner."""
        if number < self.partners:
            return None
        if number < self.partners + self.subdistributors:
            return (number - self.partners) % self.partners
        return (number - self.partners - self.subdistributors) % (self.partners + self.subdistributors)

    def children(self, number: int) -> Sequence[int]:
        """The organizations below."""
        ahead = self.partners + self.subdistributors
        if number >= ahead:
            return ()
        below = range(ahead + number, self.organization_count(), ahead)
        resellers = range(self.partners + number, ahead, self.partners) if number < self.partners else ()
        return [*resellers, *below]

    def customer_of(self, site: int) -> int:
        """The end customer of a site."""
        return self.partners + self.subdistributors + site * self.customers // self.sites

    def lineage(self, customer: int) -> list[int]:
        """The organizations above a customer, nearest first; the last is a distribution partner."""
        above: list[int] = []
        number = self.parent(customer)
        while number is not None:
            above.append(number)
            number = self.parent(number)
        return above

    # products

    def product_id(self, index: int) -> str:
        """`SC-` and twelve digits."""
        return f"SC-4100{self._products.number(index):08d}"

    def product_index(self, product_id: str) -> int | None:
        """The index of a product, listed or not; None for an id that is nobody's."""
        if len(product_id) != 15 or not product_id.startswith("SC-4100") or not product_id[7:].isdecimal():
            return None
        index = self._products.index(int(product_id[7:]))
        is_terminals = index < self.size + len(self.changes.additions) and not self.is_spare(index)
        is_extra = EXTRA_PRODUCTS <= index < EXTRA_PRODUCTS + self.extras
        return index if is_terminals or is_extra else None


def _number(text: str, prefix: str, first: int, end: int, write: Callable[[int], str]) -> int | None:
    digits = text[len(prefix) :]
    if not text.startswith(prefix) or not digits.isdecimal() or len(digits) > 9:
        return None
    number = int(digits) - first
    return number if 0 <= number < end and write(number) == text else None
