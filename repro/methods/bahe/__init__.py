"""BAHE, its partner LLM-CTR, and DTI over BAHE: models over behaviour vectors instead of text."""
