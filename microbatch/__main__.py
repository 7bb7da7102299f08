"""`python -m microbatch` is `microbatch`."""

from microbatch.cli import main

main()
