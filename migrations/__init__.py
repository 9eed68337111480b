"""The schema's history, installed as ledger.migrations; migrations.py is in sqlite-utils' own format."""
