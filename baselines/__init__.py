"""ID-based CTR models to compare with: one readable file per model, all with one fit and score contract."""
