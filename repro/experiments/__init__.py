"""Declarations only: tiers (sizes) and which runs make up each table, figure and ablation."""
