"""`python -m ledger.cli`: the same as `leadledger`."""

from ledger.cli.main import main

main()
