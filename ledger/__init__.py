"""leadledger: a resumable SQLite job ledger for paid, slow, asynchronous lead enrichment."""

__version__ = "0.1.0"
