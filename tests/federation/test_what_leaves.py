"""What leaves a site: every byte of every message is looked through for names and record numbers.

Notes hold a planted name and record number, in their text and their ids; every way to fail at a
site is gone, with the note's text in the exception. Nothing of it may be in a message, in a log or
folder of the coordinator, or in a report.
"""

import builtins
import json
import logging
import shutil
from dataclasses import replace
from itertools import cycle

import pytest
import torch
from federation_toy import ToySite, plan, sites, start
from hostile import keys_in
from safetensors import SafetensorError

from fedmedlora import errors
from fedmedlora.cli import run_command
from fedmedlora.config import load_study
from fedmedlora.corpus.jsonl import read_jsonl, write_jsonl
from fedmedlora.corpus.synthetic import make_sites
from fedmedlora.errors import FedMedLoRAError
from fedmedlora.federation import own_optimiser, own_rounding
from fedmedlora.federation import run as run_module
from fedmedlora.federation import site as site_module
from fedmedlora.federation.flower import from_bytes
from fedmedlora.federation.grid import SequentialSwitch
from fedmedlora.report.page import write_report
from fedmedlora.study.arms import study_arms
from fedmedlora.study.data import load_data
from fedmedlora.study.methods import MethodRunner
from fedmedlora.study.run import run_study

SECRETS = ("Zyxwvut", "40417263")
TEXT = "Mrs Zyxwvut, record 40417263, was admitted with chest pain."


def holds_secret(data):
    text = data if isinstance(data, bytes) else str(data).encode()
    return any(
        secret.encode(coding) in text for secret in SECRETS for coding in ("utf-8", "utf-16-le")
    )


@pytest.fixture
def messages(monkeypatch):
    """Every serialised message, both ways, as it crosses the wire."""
    crossed = []

    class Tapped(SequentialSwitch):
        def send(self, node, data):
            crossed.append(data)
            super().send(node, data)

        def receive(self):
            crossed.append(super().receive())
            return crossed[-1]

    monkeypatch.setattr(run_module, "SequentialSwitch", Tapped)
    return crossed


def look_through(folder, messages, told, caplog, capfd, *, own=("site-logs", "own")):
    """All that the coordinator has of a federation; the sites' own folders are the sites'."""
    assert not any(map(holds_secret, messages))
    assert not any(map(holds_secret, told))
    assert not holds_secret(caplog.text + "".join(capfd.readouterr()))
    for path in folder.rglob("*"):
        assert not holds_secret(path.name)
        if path.is_file() and not set(own) & set(path.relative_to(folder).parts):
            assert not holds_secret(path.read_bytes()), path


def federate(folder, told, *, workers, keys=({}, ()), initial=None, **changes):
    a_plan = plan(**{"min_sites": 1, "keep_replies": True, "public_keys": keys[1], **changes})
    try:
        result = run_module.run_federation(
            a_plan, initial or start(), workers=workers, folder=folder, audit=True, keys=keys[0],
            on_event=lambda kind, **facts: told.append(repr(facts)),
        )  # fmt: skip
    except FedMedLoRAError as error:
        told.append(repr(error) + repr(error.__cause__) + repr(error.__context__))
        return []
    told.extend(repr(record.to_dict()) for record in result.records)
    return result.records


# Every kind of exception


def raised(kind):
    """One of this kind, with the note in it wherever it has a place for text."""
    if issubclass(kind, UnicodeDecodeError):
        error = kind("utf-8", TEXT.encode(), 0, 4, TEXT)
    elif issubclass(kind, UnicodeEncodeError):
        error = kind("ascii", TEXT + "\udcff", 0, 4, TEXT)
    elif issubclass(kind, UnicodeTranslateError):
        error = kind(TEXT, 0, 4, TEXT)
    elif issubclass(kind, BaseExceptionGroup):
        error = kind(TEXT, [ValueError(TEXT)])
    elif issubclass(kind, OSError):
        error = kind(2, TEXT, f"/notes/{SECRETS[1]}.txt")
    else:
        error = kind(TEXT)
    error.add_note(TEXT)
    error.__cause__ = KeyError(TEXT)
    return error


class Speaking(Exception):
    """Cannot even be printed without a failure that holds the note."""

    def __str__(self):
        raise RuntimeError(TEXT)

    __repr__ = __str__


KINDS = [
    *(
        kind
        for kind in vars(builtins).values()
        if isinstance(kind, type) and issubclass(kind, Exception)
    ),
    SystemExit, GeneratorExit, BaseExceptionGroup,
    *(getattr(errors, name) for name in dir(errors) if name.endswith("Error")),
    torch.OutOfMemoryError, SafetensorError, json.JSONDecodeError, Speaking,
    type(f"{SECRETS[0]}Error", (ValueError,), {}),
]  # fmt: skip


def an_error(kind):
    return kind(TEXT, TEXT, 3) if kind is json.JSONDecodeError else raised(kind)


class Failing(ToySite):
    """Fails in every round, each time in another way: in training, scoring or declaring sizes."""

    def __init__(self, name, phase):
        super().__init__(name)
        self.phase, self.left = phase, cycle(KINDS)

    def train(self, adapter, order):
        if self.phase == "train":
            raise an_error(next(self.left))
        return super().train(adapter, order)

    def losses(self, adapters):
        if self.phase == "score":
            raise an_error(next(self.left))
        return super().losses(adapters)

    def declared(self):
        if self.phase == "declare":
            raise an_error(next(self.left))
        return super().declared()


@pytest.mark.parametrize(
    ("phase", "told_of"),
    [
        ("train", "(incident "),
        ("score", "(incident "),
        ("declare", "it did not declare how much"),  # asked again in every round
    ],
)
def test_no_kind_of_exception_says_anything(tmp_path, messages, caplog, capfd, phase, told_of):
    caplog.set_level(logging.DEBUG)
    told, rounds = [], len(KINDS)
    records = federate(
        tmp_path / "run", told, workers=sites(south=Failing("south", phase)), rounds=rounds,
        keys=keys_in(tmp_path / "keys"), method="fed-medlora+",
    )  # fmt: skip
    assert len(records) == rounds > 80
    for record in records:
        site = record.sites["south"]
        assert told_of in (site.scoring if phase == "score" else site.reason)
    assert len(messages) > 2 * 5 * rounds
    look_through(tmp_path / "run", messages, told, caplog, capfd)
    # It is all there for those whose notes they are.
    log = (tmp_path / "run/site-logs/south.log").read_text()
    assert log.count("--- ") >= rounds
    assert "Zyxwvut" in log


def broken_notes(name):
    """A site that cannot even be made: its file of notes is broken."""
    if name == "south":
        read_jsonl(broken_notes.file)
    return ToySite(name)


class Spoiled(ToySite):
    """Returns what cannot be sent."""

    def __init__(self, name, change):
        super().__init__(name)
        self.change = change

    def train(self, adapter, order):
        update = super().train(adapter, order)
        return self.change(update)

    def losses(self, adapters):
        losses = super().losses(adapters)
        return self.change(losses)


def only(kind, change):
    return lambda result: change(result) if type(result).__name__ == kind else result


SPOILED = {
    "a name for a count": only("SiteUpdate", lambda r: replace(r, counts={TEXT: 1})),
    "a count that is text": only("SiteUpdate", lambda r: replace(r, counts={"steps": TEXT})),
    "sizes that are text": only("SiteUpdate", lambda r: replace(r, tokens=TEXT)),
    "a loss that is text": only("SiteUpdate", lambda r: replace(r, loss_last=TEXT)),
    "no adapter": only("SiteUpdate", lambda r: replace(r, adapter=TEXT)),
    "another tensor's name": only(
        "SiteUpdate",
        lambda r: replace(r, adapter=replace(r.adapter, tensors={**r.adapter.tensors, TEXT: 1})),
    ),
    "losses that are text": only("SiteLosses", lambda r: replace(r, losses=[TEXT] * 3)),
    "nothing": lambda result: None,
    "text": lambda result: TEXT,
}


@pytest.mark.parametrize("wire", ["bf16", "int8"])
@pytest.mark.parametrize("what", SPOILED)
def test_what_a_worker_returns_in_a_wrong_form_does_not_leave(
    tmp_path, messages, caplog, capfd, what, wire
):
    told = []
    workers = sites(south=Spoiled("south", SPOILED[what]))
    records = federate(
        tmp_path, told, workers=workers, rounds=1, method="fed-medlora+", wire=wire, min_sites=2
    )
    south = records[0].sites["south"]
    assert "failed" in (south.status, (south.scoring or "").split(":")[0])
    look_through(tmp_path, messages, told, caplog, capfd)


def test_notes_that_cannot_be_read_say_so_at_the_site_alone(tmp_path, messages, caplog, capfd):
    broken_notes.file = tmp_path / f"{SECRETS[1]}.jsonl"
    broken_notes.file.write_text('{"id": "40417263", "text": "Mrs Zyxwvut')
    told = []
    records = federate(tmp_path / "run", told, workers=broken_notes, rounds=1)
    assert records[0].sites["south"].reason.startswith("data (incident ")
    look_through(tmp_path / "run", messages, told, caplog, capfd)


@pytest.mark.parametrize("what", ["log", "key", "error log"])
def test_a_site_that_cannot_log_or_sign_sends_a_word(tmp_path, messages, caplog, capfd, what):
    told, keys = [], keys_in(tmp_path / "keys")
    run = tmp_path / "run"
    if what == "log":
        (run / "site-logs" / "south.audit.jsonl").mkdir(parents=True)
    elif what == "error log":
        (run / "site-logs" / "south.log").mkdir(parents=True)
    else:
        keys[0]["south"].chmod(0o644)
    workers = sites(south=Failing("south", "train"))
    records = federate(run, told, workers=workers, rounds=1, keys=keys, connect_s=0.1)
    south = records[0].sites["south"]
    wanted = {"log": "absent", "key": "absent", "error log": "failed"}
    assert south.status == wanted[what]
    look_through(run, messages, told, caplog, capfd)


# Real sites, real notes


def planted(folder, *, ids="40417263"):
    """Notes of two sites with the secrets in text, ids and groups; and their study file."""
    made = make_sites(3, train=2, validation=1, test=1, sites=("icu", "outpatient"))
    for name, split in made.items():
        for part in ("train", "validation", "test"):
            documents = [
                replace(
                    document,
                    id=f"{ids}-{number}-{part}-{name}",
                    text=f"{document.text}\n{TEXT}",
                    group=f"{ids}-{part}-{name}",
                )
                for number, document in enumerate(getattr(split, part))
            ]
            place = folder / name
            place.mkdir(parents=True, exist_ok=True)
            write_jsonl(documents, place / f"{part}.jsonl")
    told = "{{train: {0}/train.jsonl, validation: {0}/validation.jsonl, test: {0}/test.jsonl}}"
    (folder / "study.yaml").write_text(
        "name: planted\nmethods: [fed-medlora+]\n"
        f"sites: {{icu: {told.format('icu')}, outpatient: {told.format('outpatient')}}}\n"
        "task: {heads: numbered, prompt: compact, window_words: 30}\n"
        "training: {steps: 1, batch: 2, keep_optimiser: true, objective: decisions}\n"
        "federation: {rounds: 1, wire: int8, keep_replies: true}\n"
    )
    return load_study(folder / "study.yaml", ())


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hospitals")
    study = planted(folder)
    arm = next(arm for arm in study_arms(study) if arm.label == "fed-medlora+")
    runner = MethodRunner(study, load_data(study), folder / "run", lambda kind, facts: None)
    workers = {name: runner.worker(arm, name) for name in ("icu", "outpatient")}
    return workers, runner.bench(arm).base(study).initial, folder


def clear(folder):
    shutil.rmtree(folder / "run", ignore_errors=True)


def train_hospitals(hospitals, told, folder):
    workers, initial, place = hospitals
    clear(place)
    return federate(
        folder, told, workers=workers, initial=initial, sites=("icu", "outpatient"),
        run_id="planted/fed-medlora+", rounds=1, method="fed-medlora+", wire="int8",
    )  # fmt: skip


def test_real_notes_leave_nothing_but_the_adapter_counts_and_losses(
    hospitals, tmp_path, messages, caplog, capfd
):
    caplog.set_level(logging.DEBUG)
    told = []
    records = train_hospitals(hospitals, told, tmp_path)
    assert {site.status for site in records[0].sites.values()} == {"ok"}
    look_through(tmp_path, messages, told, caplog, capfd)
    size = hospitals[1].manifest.size
    read = [from_bytes(data) for data in messages]
    replies = [one.content for one in read if one.metadata.reply_to_message_id]
    assert len(replies) == 2 * 3  # introduction, training, scoring
    for reply in replies:
        arrays = {key for record in reply.array_records.values() for key in record}
        assert arrays <= {"packed"}
        for record in reply.array_records.values():
            assert len(record["packed"].data) < 1.1 * size  # int8
        names = {key for record in reply.metric_records.values() for key in record}
        assert names <= {
            "examples", "tokens", "validation", "seconds", "loss_first", "loss_last", "losses",
            "steps",
        }  # fmt: skip
        assert set(reply["config"]) <= {
            "run", "round", "site", "status", "manifest", "head", "candidates"
        }  # fmt: skip
        assert all(len(bytes.fromhex(h)) == 32 for h in reply["config"].get("candidates", []))


PLACES = {
    "loading": (site_module, "load_adapter"),
    "training": (site_module, "train_adapter"),
    "reading the adapter out": (site_module, "adapter_of"),
    "scoring": (site_module, "candidate_losses"),
    "the optimiser kept": (own_optimiser.OwnOptimiser, "recall"),
    "keeping the optimiser": (own_optimiser.OwnOptimiser, "keep"),
    "what was rounded": (own_rounding.OwnRounding, "recall"),
    "keeping what was rounded": (own_rounding.OwnRounding, "keep"),
}


@pytest.mark.parametrize("kind", [ValueError, torch.OutOfMemoryError])
@pytest.mark.parametrize("place", PLACES)
def test_wherever_a_real_site_fails_it_says_a_word_and_a_number(
    hospitals, tmp_path, messages, caplog, capfd, monkeypatch, place, kind
):
    caplog.set_level(logging.DEBUG)

    def fail(*_, **__):
        raise raised(kind)

    monkeypatch.setattr(*PLACES[place], fail)
    told = []
    assert train_hospitals(hospitals, told, tmp_path) == []  # both failed: below quorum
    word = "memory" if kind is torch.OutOfMemoryError else "error"
    failed = json.loads((tmp_path / "round-0001.failed.json").read_text())
    for site in failed["sites"].values():
        assert word in (site["reason"] or site["scoring"])
    look_through(tmp_path, messages, told, caplog, capfd)
    assert holds_secret((tmp_path / "site-logs" / "icu.log").read_bytes())


def test_a_whole_run_has_notes_where_it_says_so_and_nowhere_else(tmp_path, messages, caplog, capfd):
    study = planted(tmp_path, ids="note")  # a report shows ids
    run = tmp_path / "run"
    run_study(study, run)
    write_report(run, run / "report.html")
    assert run_command(["verify", str(run)]) == 0
    assert holds_secret((run / "gold" / "icu.jsonl").read_bytes())  # as docs/study.md says
    look_through(run, messages, [], caplog, capfd, own=("own", "answers", "gold", "predictions"))
