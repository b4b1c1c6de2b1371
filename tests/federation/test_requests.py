"""Which requests a site answers: those of its own run, whatever they ask for."""

import pytest
from federation_toy import SITES, ToySite, plan, start

from fedmedlora.federation import wire
from fedmedlora.federation.client import INTRODUCE, Desk, client_app
from fedmedlora.federation.ends import CoordinatorEnd
from fedmedlora.federation.flower import Context, Message, MessageType, RecordDict, TaskIdentity
from fedmedlora.model.packing import pack

ASKED = {"introduce": INTRODUCE, "train": MessageType.TRAIN, "score": MessageType.EVALUATE}


def question(phase, run="toy"):
    """A request of the toy federation, or of another run."""
    if phase == "introduce":
        return CoordinatorEnd(plan(run_id=run)).introduction()
    adapter = start()
    call = wire.Call(run, 1, adapter.manifest.to_json(), "bf16", nonce="n")
    packed = pack(adapter, "bf16")
    if phase == "score":
        return wire.scoring_request(call, [packed, packed], before=None)
    return wire.request(call, wire.adapter_arrays(packed))


def answered(desk, content, phase):
    """What north answers, as (status, code)."""
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = 1, 0, 0
    message = Message(content, 1, ASKED[phase])
    message.metadata.__dict__["_message_id"] = "asked"
    context = Context(1, 1, {"site": "north"}, RecordDict(), {})
    config = client_app(desk)(message, context).content[wire.CONFIG]
    return config["status"], config.get("code")


@pytest.mark.parametrize("phase", ASKED)
def test_a_request_of_another_run_is_refused_before_the_site_is_made(phase):
    made = []

    def worker(name):
        made.append(name)
        return ToySite(name)

    desk = Desk(SITES, worker, run="toy")
    assert answered(desk, question(phase, run="other"), phase) == ("failed", "config")
    assert made == []
    assert answered(desk, question(phase), phase) == ("ok", None)
    assert made == ["north"]
