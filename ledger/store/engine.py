"""The one SQLite library of this process: sqlite-utils' choice.

So an installed `pysqlite3` is used by everybody or by nobody: two copies of the library on one file in one
process can corrupt it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
else:
    from sqlite_utils.utils import sqlite3

__all__ = ["sqlite3"]
