"""The command line, installed as ledger.cli: one command a file, the only place that wires parts together."""
