"""Secure aggregation: the coordinator learns the sum of the sites' weighted updates, no summand."""
