"""`python -m propylon`."""

from propylon.cli.main import main

main(prog_name="propylon")
