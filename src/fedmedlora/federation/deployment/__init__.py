"""A federation over machines: certificates and keys, site kits, Flower's processes, their state."""
