"""Every SQL statement, every sqlite3 and sqlite_utils import, the lock: the one writer of a ledger."""
