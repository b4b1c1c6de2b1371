"""Federated LoRA training of language models for clinical information extraction."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("fedmedlora")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"
