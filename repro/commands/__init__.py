"""Commands of `python -m repro` that are alike, and what all share; `repro/cli.py` puts them in order."""
