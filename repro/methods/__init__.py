"""Methods: how rows are built plus how a forward pass scores targets."""
