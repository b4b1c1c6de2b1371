"""Aggregation: adapters and weights in, an adapter out; pure arithmetic on arrays."""
