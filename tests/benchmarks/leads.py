"""Made-up leads as CSV files. No two businesses share an address, a phone or a mailbox unless asked to."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Final

NIGHT_HEADER: Final = (
    "company",
    "street",
    "city",
    "state",
    "zip",
    "number1",
    "dm_name",
    "email",
    "domain",
)
"""The names under which the provider wants them, so that the plain script needs no map."""
EXPORT_HEADER: Final = (
    "Company Name",
    "Street Address",
    "City",
    "State",
    "Zip",
    "Phone",
    "Full Name",
    "Email",
    "Website",
    "Lead Status",
)
_CITIES: Final = (
    ("Tucson", "AZ", "857"),
    ("Reno", "NV", "895"),
    ("Boise", "ID", "837"),
    ("Ogden", "UT", "844"),
)
_REPEAT_EVERY: Final = 10
"""One row in so many is a lead that came before: the 10 % of duplicates in a CRM export."""


def _lead(number: int) -> tuple[str, ...]:
    city, state, zip3 = _CITIES[number % len(_CITIES)]
    domain = f"roofing-{number}.example"
    return (
        f"Roofing & Sons No. {number}",
        f"{100 + number % 9000} Oak Street Unit {number}",
        city,
        state,
        f"{zip3}{number % 100:02d}",
        f"(520) {220 + number // 10_000:03d}-{number % 10_000:04d}",
        f"Dana Smith-{number}",
        f"office@{domain}",
        domain,
    )


def write_night(path: Path, count: int) -> None:
    """`count` different leads under canonical names."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(NIGHT_HEADER)
        writer.writerows(_lead(number) for number in range(count))


def write_export(path: Path, count: int) -> int:
    """An export of `count` rows in the words of a CRM; returns how many different leads are in it."""
    distinct = 0
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(EXPORT_HEADER)
        for row in range(count):
            repeat = row % _REPEAT_EVERY == _REPEAT_EVERY - 1
            number = distinct // 2 if repeat else distinct
            distinct += not repeat
            writer.writerow((*_lead(number), "contacted" if repeat else "new"))
    return distinct
