"""`python -m rcv`: the `rcv` command where its script is not on the path."""

from rcv.cli import main

main()
