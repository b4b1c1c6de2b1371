"""Keys made at a hospital and admitted by its coordinator: proof, no second key, who is missing."""

import json
import shutil
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key
from deployment_toys import found, study_of

from fedmedlora.canonical import canonical
from fedmedlora.cli import run_command
from fedmedlora.errors import ConfigError, DataError, RunError
from fedmedlora.federation import signing
from fedmedlora.federation.deployment import registering
from fedmedlora.federation.deployment.journal import at_work
from fedmedlora.federation.deployment.kit import unpack_kit
from fedmedlora.federation.deployment.layout import CoordinatorFolder, membership_file
from fedmedlora.federation.deployment.membership import read_membership
from fedmedlora.federation.deployment.node_keys import is_signed_with_node_key, sign_with_node_key
from fedmedlora.federation.plan_file import PLAN_FILE
from fedmedlora.study import admitting
from fedmedlora.study.admitting import admit_sites, admitted_sites, all_admitted
from fedmedlora.study.standing import standing

SITES = ("icu", "outpatient", "discharge")


@pytest.fixture(scope="module")
def founded(tmp_path_factory):
    return found(tmp_path_factory.mktemp("federation"), study_of(), admit=False)


@pytest.fixture
def federation(founded, tmp_path):
    """(coordinator's folder with nobody admitted, site -> what it sent back)."""
    made, hospitals = founded
    shutil.copytree(made.folder, tmp_path / "coordinator")
    return CoordinatorFolder(tmp_path / "coordinator"), {
        one.name: one.membership for one in hospitals
    }


def again(founded, folder):
    """The membership of a site that unpacked its kit a second time."""
    made, _ = founded
    unpack_kit(made.kits["icu"], folder, public=made.public)
    return membership_file(folder, "icu")


def test_a_site_is_admitted_with_the_keys_that_it_made(federation):
    folder, sent = federation
    told = admit_sites(folder.root, list(sent.values()))
    assert tuple(told) == SITES
    assert all_admitted(folder, SITES) == told
    for site, path in sent.items():
        keys = path.parent / "keys"
        signed = signing.sign(b"x", signing.read_key(keys / "signing.key"), purpose="reply")
        assert signing.is_signed(b"x", signed, told[site].signing, purpose="reply")
        private = load_ssh_private_key((keys / "node.key").read_bytes(), None)
        node = load_ssh_public_key(told[site].node.encode())
        assert private.public_key() == node
        assert node.curve.name == "secp384r1"


def test_nothing_of_a_membership_can_be_changed_unseen(federation, tmp_path):
    folder, sent = federation
    content = json.loads(sent["icu"].read_text())
    other = json.loads(sent["outpatient"].read_text())
    for key, value in content.items():
        assert value != other[key] or key == "federation"
        changed = other[key] if value != other[key] else "0" * 64
        (tmp_path / "changed.json").write_text(json.dumps({**content, key: changed}))
        with pytest.raises(DataError, match="its proof does not fit"):
            admit_sites(folder.root, [tmp_path / "changed.json"])
    assert admitted_sites(folder, SITES) == {}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"site": 1}', "null", "[" * 100_000])
def test_what_is_no_membership_is_refused(federation, tmp_path, text):
    folder, _ = federation
    (tmp_path / "file.json").write_text(text)
    with pytest.raises(DataError, match=r"is no SITE\.membership\.json"):
        admit_sites(folder.root, [tmp_path / "file.json"])


def naming(node, *, own, path, node_proof=""):
    """What a site's signing key says of itself with any node key that it likes."""
    made = replace(read_membership(own), node=node, node_proof=node_proof)
    key = signing.read_key(own.parent / "keys" / "signing.key")
    made = replace(made, proof=signing.sign(made.signed, key, purpose="membership"))
    path.write_bytes(made.to_json())
    return path


def test_a_node_key_of_another_kind_is_refused(federation, tmp_path):
    folder, sent = federation
    made = read_membership(sent["icu"])
    for line in ("", made.node + " comment", "ssh-ed25519 AAAA"):
        own = naming(line, own=sent["icu"], path=tmp_path / "own.json")
        with pytest.raises(DataError, match="P-384"):
            admit_sites(folder.root, [own])


def test_a_node_key_that_its_maker_does_not_have_is_refused(federation, tmp_path, founded):
    folder, sent = federation
    second = read_membership(again(founded, tmp_path / "again"))  # admitted nowhere
    for proof in ("", "00", "no hex", second.node_proof):
        own = naming(second.node, own=sent["icu"], path=tmp_path / "own.json", node_proof=proof)
        with pytest.raises(DataError, match=r"its maker has the node key .* ask site 'icu' for"):
            admit_sites(folder.root, [own])
    assert admitted_sites(folder, SITES) == {}


def test_a_membership_without_the_node_keys_signature_is_refused(federation, tmp_path):
    folder, sent = federation
    made = read_membership(sent["icu"])
    content = {key: getattr(made, key) for key in ("site", "federation", "signing", "node")}
    key = signing.read_key(sent["icu"].parent / "keys" / "signing.key")
    for signed in (content, {**content, "node_proof": ""}):
        proof = signing.sign(canonical(signed), key, purpose="membership")
        (tmp_path / "own.json").write_text(json.dumps({**signed, "proof": proof}))
        with pytest.raises(DataError, match=r"proof does not fit|nothing shows that its maker"):
            admit_sites(folder.root, [tmp_path / "own.json"])


def test_of_the_node_keys_many_signatures_one_belongs_to_a_membership(federation, tmp_path):
    folder, sent = federation
    made, key = read_membership(sent["icu"]), sent["icu"].parent / "keys" / "node.key"
    other = replace(made, node_proof=sign_with_node_key(made.statement, key))
    assert is_signed_with_node_key(made.statement, other.node_proof, made.node)
    (tmp_path / "other.json").write_bytes(other.to_json())
    with pytest.raises(DataError, match="its proof does not fit"):
        admit_sites(folder.root, [tmp_path / "other.json"])


def test_a_site_of_another_federation_is_refused(federation, tmp_path):
    _, sent = federation
    other, _ = found(tmp_path / "other", study_of(), admit=False)
    with pytest.raises(DataError, match="another federation"):
        admit_sites(other.folder, [sent["icu"]])


def test_a_second_key_of_a_site_is_refused_unless_it_is_to_replace_the_first(
    federation, founded, tmp_path
):
    folder, sent = federation
    admit_sites(folder.root, [sent["icu"]])
    admit_sites(folder.root, [sent["icu"]])  # the same again is no other
    second = again(founded, tmp_path / "again")
    with pytest.raises(DataError, match="another key was admitted for site 'icu'"):
        admit_sites(folder.root, [second])
    assert admitted_sites(folder, SITES)["icu"] == read_membership(sent["icu"])
    admit_sites(folder.root, [second], replace=True)
    assert admitted_sites(folder, SITES)["icu"] == read_membership(second)


def test_of_two_commands_that_admit_a_site_at_once_the_second_is_refused(
    federation, founded, tmp_path, monkeypatch
):
    folder, sent = federation
    second = again(founded, tmp_path / "again")

    @contextmanager
    def after_another(place):
        """Taken when another command had it, and has admitted a key."""
        monkeypatch.undo()
        admit_sites(folder.root, [sent["icu"]])
        with at_work(place):
            yield

    monkeypatch.setattr(admitting, "at_work", after_another)
    with pytest.raises(DataError, match="another key was admitted for site 'icu'"):
        admit_sites(folder.root, [second])
    assert admitted_sites(folder, SITES)["icu"] == read_membership(sent["icu"])


def test_a_command_killed_while_it_replaces_a_key_leaves_the_one_before(
    federation, founded, tmp_path, monkeypatch
):
    folder, sent = federation
    admit_sites(folder.root, [sent["icu"]])
    second = again(founded, tmp_path / "again")

    def killed(path, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        admit_sites(folder.root, [second], replace=True)
    monkeypatch.undo()
    assert admitted_sites(folder, SITES)["icu"] == read_membership(sent["icu"])
    admit_sites(folder.root, [second], replace=True)
    assert admitted_sites(folder, SITES)["icu"] == read_membership(second)


def test_a_study_that_was_changed_at_the_coordinator_is_what_is_named(federation):
    folder, sent = federation
    admit_sites(folder.root, [sent["icu"]])
    folder.study.write_text(folder.study.read_text().replace("steps: 2", "steps: 3"))
    with pytest.raises(DataError, match=r"study\.yaml: was changed after the federation"):
        admit_sites(folder.root, [sent["outpatient"]])


def test_a_key_is_not_replaced_while_the_federation_runs_or_after_its_run_began(
    federation, founded, tmp_path
):
    folder, sent = federation
    admit_sites(folder.root, list(sent.values()))
    second = again(founded, tmp_path / "again")
    with at_work(folder.state), pytest.raises(RunError, match="federation stop"):
        admit_sites(folder.root, [second], replace=True)
    (folder.run / "federation" / "fed-medlora").mkdir(parents=True)
    (folder.run / "federation" / "fed-medlora" / PLAN_FILE).write_text("{}")
    with pytest.raises(RunError, match="the run has begun with the keys before of icu"):
        admit_sites(folder.root, [second], replace=True)
    assert admitted_sites(folder, SITES)["icu"] == read_membership(sent["icu"])


def test_one_wrong_file_keeps_all_out(federation, tmp_path):
    folder, sent = federation
    (tmp_path / "wrong.json").write_text("{}")
    with pytest.raises(DataError):
        admit_sites(folder.root, [sent["icu"], tmp_path / "wrong.json"])
    with pytest.raises(DataError, match="named twice"):
        admit_sites(folder.root, [sent["icu"], sent["icu"]])
    assert admitted_sites(folder, SITES) == {}


def test_two_sites_cannot_have_one_node_key_even_if_it_was_copied(federation, tmp_path):
    folder, sent = federation
    admit_sites(folder.root, [sent["icu"]])
    copied = sent["icu"].parent / "keys" / "node.key"
    line = read_membership(sent["icu"]).node
    statement = replace(read_membership(sent["outpatient"]), node=line).statement
    own = naming(
        line,
        own=sent["outpatient"],
        path=tmp_path / "own.json",
        node_proof=sign_with_node_key(statement, copied),
    )
    with pytest.raises(DataError, match="'icu' and 'outpatient' say that they have the same key"):
        admit_sites(folder.root, [own])


def test_what_was_admitted_and_changed_afterwards_is_refused(federation):
    folder, sent = federation
    admit_sites(folder.root, list(sent.values()))
    shutil.copy(folder.membership("icu"), folder.membership("outpatient"))
    with pytest.raises(DataError, match="'icu' is none of outpatient"):
        all_admitted(folder, SITES)


def test_start_names_the_sites_whose_keys_are_missing(federation, capsys):
    folder, sent = federation
    arguments = ["federation", "admit", str(folder.root), str(sent["outpatient"])]
    assert run_command(arguments) == 0
    assert read_membership(sent["outpatient"]).fingerprint in capsys.readouterr().out
    assert run_command(["federation", "start", str(folder.root)]) == 2
    assert "no key is admitted yet of icu, discharge:" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="icu, discharge"):
        all_admitted(folder, SITES)


def test_status_shows_who_is_admitted(federation):
    folder, sent = federation
    admit_sites(folder.root, [sent["outpatient"]])
    found = standing(folder.root)
    assert found.sentences[1] == "no key is admitted yet of icu, discharge"
    fingerprint = read_membership(sent["outpatient"]).fingerprint
    assert [row[1] for row in found.tables[0].rows] == [
        "not admitted", fingerprint[:9], "not admitted"
    ]  # fmt: skip


class SuperLink:
    """Stands for Flower's commands about registered keys."""

    def __init__(self):
        self.nodes, self.used = {}, []
        self.killed_at = ""

    def __call__(self, folder, arguments):
        what, told, fault = arguments[1], {"success": True}, ""
        if what == "register":
            key = Path(arguments[2]).read_text().strip()
            if key in self.used:
                told, fault = {"success": False}, "Public key already in use"
            else:
                self.used.append(key)
                self.nodes[len(self.used)] = key
                told["node-id"] = len(self.used)
        elif self.nodes.pop(int(arguments[2]), None) is None:
            told, fault = {"success": False}, "Node ID not found for account."
        if what == self.killed_at:  # the command that asked is, before it hears of it
            self.killed_at = ""
            raise KeyboardInterrupt
        return type("Done", (), {"stdout": json.dumps(told), "stderr": fault, "returncode": 0})


@pytest.fixture
def superlink(monkeypatch):
    stands = SuperLink()
    monkeypatch.setattr(registering, "call", stands)
    return stands


def register(folder):
    members = all_admitted(folder, SITES)
    registering.register_sites(folder, {site: made.node for site, made in members.items()})


def test_a_replaced_key_takes_the_place_of_the_one_before_at_the_superlink(
    federation, founded, tmp_path, superlink
):
    folder, sent = federation
    admit_sites(folder.root, list(sent.values()))
    for _ in range(2):  # the second time all are known
        register(folder)
    assert sorted(superlink.nodes) == [1, 2, 3]
    second = again(founded, tmp_path / "again")
    admit_sites(folder.root, [second], replace=True)
    register(folder)
    assert sorted(superlink.nodes) == [2, 3, 4]
    assert superlink.nodes[4] == read_membership(second).node


@pytest.mark.parametrize("moment", ["unregister", "register"])
def test_a_start_that_is_killed_while_it_replaces_a_key_goes_on_at_the_next(
    federation, founded, tmp_path, superlink, moment
):
    folder, sent = federation
    admit_sites(folder.root, list(sent.values()))
    register(folder)
    second = again(founded, tmp_path / "again")
    admit_sites(folder.root, [second], replace=True)
    superlink.killed_at = moment
    with pytest.raises(KeyboardInterrupt):
        register(folder)
    for _ in range(2):
        register(folder)
    assert superlink.nodes[4] == read_membership(second).node
    assert sorted(superlink.nodes) == [2, 3, 4]


def test_a_key_that_the_superlink_refuses_to_forget_says_what_to_remove(
    federation, founded, tmp_path, superlink, monkeypatch
):
    folder, sent = federation
    admit_sites(folder.root, list(sent.values()))
    register(folder)
    admit_sites(folder.root, [again(founded, tmp_path / "again")], replace=True)
    refused = type("Done", (), {"stdout": "", "stderr": "no", "returncode": 1})
    monkeypatch.setattr(registering, "call", lambda folder, arguments: refused)
    with pytest.raises(RunError, match=f"no; remove {folder.state}, so that"):
        register(folder)
