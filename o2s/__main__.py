"""`python -m o2s`, for launchers such as torchrun."""

from o2s.cli import main

main()
