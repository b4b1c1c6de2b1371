"""The federation: Flower's apps, one strategy, screening, checkpoints; ``run.run_federation``."""
