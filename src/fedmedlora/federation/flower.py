"""Flower, quietly: the only module that imports flwr.

Sets, before the import, what keeps it from calling out (telemetry, update check, installing an
app's dependencies, Ray's usage report) and reduces its console log to warnings.
"""

from __future__ import annotations

import logging
import os

from fedmedlora.federation.offline import OFFLINE

os.environ.update(OFFLINE)

# The imports must follow the environment that they read.
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MessageType,
    Metadata,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.common.secure_aggregation.crypto.shamir import combine_shares, create_shares
from flwr.common.serde import message_from_proto, message_to_proto
from flwr.proto.message_pb2 import Message as ProtoMessage
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import Strategy
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

LOGGER = logging.getLogger("flwr")
LOGGER.setLevel(logging.WARNING)

__all__ = [
    "LOGGER",
    "OFFLINE",
    "Array",
    "ArrayRecord",
    "ClientApp",
    "ConfigRecord",
    "Context",
    "Grid",
    "Message",
    "MessageType",
    "Metadata",
    "MetricRecord",
    "RecordDict",
    "Run",
    "ServerApp",
    "Strategy",
    "TaskIdentity",
    "combine_shares",
    "create_shares",
    "from_bytes",
    "simulate",
    "to_bytes",
]


def simulate(
    server: ServerApp, client: ClientApp, *, nodes: int, backend: dict[str, dict[str, object]]
) -> None:
    """Run both apps on Flower's simulation.

    Args:
        server, client: the apps.
        nodes: how many SuperNodes to simulate.
        backend: Ray's settings.
    """
    from flwr.simulation import run_simulation  # slow to import, and needed here alone

    run_simulation(
        server_app=server, client_app=client, num_supernodes=nodes, backend_config=backend
    )


def to_bytes(message: Message) -> bytes:
    """The message as Flower serialises it (protobuf)."""
    data: bytes = message_to_proto(message).SerializeToString()
    return data


def from_bytes(data: bytes) -> Message:
    """The message that ``to_bytes`` serialised."""
    return message_from_proto(ProtoMessage.FromString(data))
