"""What every page begins and ends with: which ledger, may it be looked at, and the answer as HTML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from datasette.utils.asgi import Forbidden, NotFound, Response

from ledger.browse import outside
from ledger.browse.compat import may_look

if TYPE_CHECKING:
    from datasette.app import Datasette

    from ledger.browse.outside import Book


async def served(datasette: Datasette, request: Any) -> Book:
    """The ledger, if there is one and whoever asks may look at it.

    Raises:
        NotFound: No ledger is served.
        Forbidden: This Datasette's permissions say no.
    """
    book = await outside.find_book(datasette)
    if book is None:
        raise NotFound("This Datasette serves no ledger.")
    if not await may_look(datasette, request.actor, book.name):
        raise Forbidden("This database is not for you.")
    return book


async def page(datasette: Datasette, request: Any, template: str, book: Book, **values: Any) -> Response:
    """A page of ours, never kept by anybody on the way."""
    outer = outside.of(datasette)
    values = {"book": book, "now": outer.clock.now(), "can_apply": outer.apply is not None, **values}
    html = await datasette.render_template(f"ledger/{template}.html", values, request=request)
    return Response.html(html, headers={"cache-control": "no-store"})


def number(text: str) -> int:
    """A row's number out of an address.

    Raises:
        NotFound: It cannot be one.
    """
    if not (text.isascii() and text.isdigit() and len(text) < 19):
        raise NotFound(f"{text!r} is not a number.")
    return int(text)
