"""What needs torch: the backbone, adapters in it, training and decoding."""
