"""Interactions -> prompts: rows, tokens, packed batches."""
