"""`python -m cellmove`."""

from cellmove.cli import main

main()
