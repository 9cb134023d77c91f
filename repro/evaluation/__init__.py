"""From scores to statements: metrics, bootstrap intervals over users and seeds, DeLong.

`metrics` turns one run's scores into the numbers of a record; `intervals` turns the scores of several
seeds into means, intervals and paired differences; `delong` is the second opinion on one seed.
"""
