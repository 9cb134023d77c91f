"""Benchmark and reproduction suite for efficient LLM training in click-through-rate (CTR) prediction.

Data flows left to right: data -> prompts -> methods (on backbones) -> training -> records -> reporting.
Importing this package imports nothing heavy.
"""

__version__ = "0.1.0"
