"""Who is the same lead: the keys of a row, strongest first."""

from __future__ import annotations

from typing import Final

from ledger.intake.normalise import fold, zip_key
from ledger.model import LEAD_FIELDS, Keys

NO_IDENTITY: Final = "no identity: needs one of contact_id, email, company, phone"
IDENTITY_FIELDS: Final = ("contact_id", "email", "company", "number1", "number2")
"""A file that fills none of these holds no leads."""

_CONTACT, _EMAIL, _COMPANY, _STREET, _CITY, _STATE, _ZIP, _NUMBER1, _NUMBER2 = map(
    LEAD_FIELDS.index,
    ("contact_id", "email", "company", "street", "city", "state", "zip", "number1", "number2"),
)


def keys_of(fields: tuple[str | None, ...], source: str, region: str) -> Keys | None:
    """The keys of a row from its cleaned fields (in the order of `LEAD_FIELDS`); None when it has none.

    The place is company with street or zip. A row with nothing but a company takes company, city and state
    instead: weaker, but better than losing the lead; its shape keeps it apart from the stronger kind.
    """
    contact, email = fields[_CONTACT], fields[_EMAIL]
    phone = fields[_NUMBER1] or fields[_NUMBER2]
    place = _place(fields, region)
    if contact is None and email is None and place is None and phone is None:
        company = fold(fields[_COMPANY] or "")
        if not company:
            return None
        place = f"{company}||{fold(fields[_CITY] or '')}|{fold(fields[_STATE] or '')}"
    return Keys(
        None if contact is None else f"{source}:{contact}",
        None if email is None else email.casefold(),
        place,
        phone,
    )


def _place(fields: tuple[str | None, ...], region: str) -> str | None:
    company, street, code = fields[_COMPANY], fields[_STREET], fields[_ZIP]
    if company is None or (street is None and code is None):
        return None
    name = fold(company)
    where = fold(street) if street else ""
    area = zip_key(code, region) if code else ""
    return f"{name}|{where}|{area}" if name and (where or area) else None
