"""What training costs: counts and timings."""
