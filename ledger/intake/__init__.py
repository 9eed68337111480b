"""Reading CRM exports: dialect, encoding, header map, normalising, identity keys.

`open_file` is the front door; everything behind it is free of SQL and HTTP.
"""

from ledger.intake.file import ImportFile, open_file

__all__ = ["ImportFile", "open_file"]
