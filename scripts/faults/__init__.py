"""What `measure_faults.py` is made of."""
