"""Server steps: by hand, and equal to Flower's strategies of the same names."""

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAdam, FedAvgM

from fedmedlora.aggregation.server_optimiser import ServerOptions, adam_step, momentum_step
from fedmedlora.errors import ConfigError
from fedmedlora.federation.flower import TaskIdentity


def state(*values):
    return {"x": np.array(values, np.float32)}


def test_momentum_by_hand():
    options = ServerOptions(learning_rate=1.0, momentum=0.5)
    one, memory = momentum_step(state(1), state(3), {}, options)
    assert one["x"].tolist() == [3]
    # The sites moved by 1 more; half of the last step (2) is added.
    two, memory = momentum_step(one, state(4), memory, options)
    assert two["x"].tolist() == [5]
    assert memory["x"].tolist() == [-2]


def test_without_momentum_and_with_rate_one_the_average_is_the_next_adapter():
    options = ServerOptions(learning_rate=1.0, momentum=0.0)
    _, memory = momentum_step(state(1), state(3), {}, options)
    assert momentum_step(state(3), state(7), memory, options)[0]["x"].tolist() == [7]


def messages(rows):
    """Replies as Flower's strategies read them, all of one size."""
    found = []
    for row in rows:
        content = RecordDict(
            {
                "arrays": ArrayRecord({"x": Array(np.array(row, np.float32))}),
                "metrics": MetricRecord({"num-examples": 1}),
            }
        )
        request = Message(RecordDict(), dst_node_id=1, message_type="train")
        found.append(Message(content, reply_to=request))
    return found


@pytest.fixture(autouse=True)
def addressed():
    """What Flower's messages read to address themselves; the grid sets it in a federation."""
    TaskIdentity.run_id = 1
    TaskIdentity.node_id = TaskIdentity.task_id = 0


ROUNDS = [[[1.0, -2.0], [3.0, 2.0]], [[2.0, 0.5], [2.0, 0.0]], [[-1.0, 1.0], [0.0, 4.0]]]


def ours(step):
    here, memory = state(0.5, -0.5), {}
    for number, rows in enumerate(ROUNDS, 1):
        average = {"x": np.mean(np.array(rows, np.float32), axis=0)}
        here, memory = step(here, average, memory, number)
        yield here["x"]


def flowers(strategy, *, momentum=False):
    here = ArrayRecord({"x": Array(state(0.5, -0.5)["x"])})
    for number, rows in enumerate(ROUNDS, 1):
        if momentum:
            strategy.current_arrays = here
        else:
            strategy.current_arrays = {"x": here["x"].numpy()}
        here, _ = strategy.aggregate_train(number, messages(rows))
        yield here["x"].numpy()


def test_momentum_is_flowers():
    options = ServerOptions(learning_rate=0.7, momentum=0.9)
    theirs = flowers(FedAvgM(server_learning_rate=0.7, server_momentum=0.9), momentum=True)
    mine = ours(lambda here, mean, memory, _: momentum_step(here, mean, memory, options))
    for one, other in zip(mine, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_fedadam_is_flowers():
    options = ServerOptions(learning_rate=0.1)
    theirs = flowers(FedAdam(eta=0.1, beta_1=0.9, beta_2=0.99, tau=1e-3))
    mine = ours(
        lambda here, mean, memory, number: adam_step(here, mean, memory, options, round=number)
    )
    for one, other in zip(mine, theirs, strict=True):
        assert one == pytest.approx(other, rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"learning_rate": 0}, {"momentum": 1}, {"beta_1": -0.1}, {"beta_2": 1}, {"adaptivity": 0}],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ServerOptions(**wrong)
