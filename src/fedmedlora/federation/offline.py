"""Environments in which nobody is called: no telemetry, updates, installation or hub."""

from __future__ import annotations

#: For Flower.
OFFLINE = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    # What Ray warns will be its default: processes that ask for no GPU of their own still see it.
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
#: For transformers, where the backbone has to be on this machine: no hub is asked, or told of it.
NO_HUB = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TRANSFORMERS_OFFLINE": "1",
}
