"""`python -m repro`: see `repro/cli.py`."""

from repro.cli import main

if __name__ == "__main__":
    main()
