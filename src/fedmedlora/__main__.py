"""``python -m fedmedlora``: the command line."""

from fedmedlora.cli import main

main()
