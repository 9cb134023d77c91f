"""Language models as backbones: loading, tokenizers, LoRA, the [SUM] token, attention backends.

`spec` and `shapes` import neither torch nor transformers; everything else is imported where it is used.
"""
