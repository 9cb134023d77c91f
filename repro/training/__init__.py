"""The one training loop (on accelerate), its checkpoints, clocks and progress; it knows no method by name."""
