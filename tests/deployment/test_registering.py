"""A real SuperLink knows the keys that were admitted, and forgets one that was replaced."""

import json

import pytest
from deployment_toys import found, study_of

from fedmedlora.config_deployment import load_coordinator
from fedmedlora.federation.deployment.coordinator import coordinator_services
from fedmedlora.federation.deployment.flower_files import write_flower_files
from fedmedlora.federation.deployment.kit import unpack_kit
from fedmedlora.federation.deployment.layout import CoordinatorFolder, membership_file
from fedmedlora.federation.deployment.registering import register_sites
from fedmedlora.federation.deployment.services import Services, wait_for_port
from fedmedlora.study.admitting import admit_sites, all_admitted


@pytest.mark.slow
def test_a_key_that_was_replaced_is_forgotten_by_the_superlink(tmp_path):
    made, _ = found(tmp_path, study_of())
    folder = CoordinatorFolder(made.folder)
    port = load_coordinator(folder.settings).superlink_port
    write_flower_files(folder, port=port, app="")
    superlink, *_ = coordinator_services(folder, port=port, proxy=True, environment={})
    services = Services([superlink], logs=folder.logs)
    services.start()
    try:
        wait_for_port(port, seconds=60, alive=lambda: services.pid("superlink") is not None)
        register(folder)
        before = noted(folder)
        note = (folder.registered / "icu").read_bytes()
        assert before["node"]
        register(folder)
        assert noted(folder) == before
        unpack_kit(made.kits["icu"], tmp_path / "again", public=made.public)
        admit_sites(folder.root, [membership_file(tmp_path / "again", "icu")], replace=True)
        register(folder)
        after = noted(folder)
        assert after["node"] not in (None, before["node"])
        (folder.registered / "icu").write_bytes(note)  # killed when the first was forgotten
        register(folder)
        assert noted(folder) == {"key": after["key"], "node": None}
        (folder.registered / "icu").unlink()  # killed before it was noted
        register(folder)
        assert noted(folder) == {"key": after["key"], "node": None}
    finally:
        services.stop()


def register(folder):
    register_sites(folder, {"icu": all_admitted(folder, ["icu"])["icu"].node})


def noted(folder):
    """The site's key and the SuperLink's number for it."""
    return json.loads((folder.registered / "icu").read_text())
