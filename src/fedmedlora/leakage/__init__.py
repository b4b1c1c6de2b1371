"""What a run's adapters tell of the notes that they were trained on; see docs/leakage.md."""
