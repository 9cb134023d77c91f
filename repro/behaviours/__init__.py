"""Atomic behaviours (BAHE, section 2.2.1): distinct texts, their vectors, and the table that keeps them."""
