"""Where things are in a coordinator's folder and in a site's: the only place that knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fedmedlora.errors import ConfigError

#: Name of the connection in Flower's own configuration.
CONNECTION = "fedmedlora"
#: What all parties have, the same bytes.
STUDY_FILE = "study.yaml"
#: Where in a site's work folder is what went wrong in training, which may hold note text.
INCIDENTS = "incidents"
#: Environment variable that tells a coordinator's processes its folder: a run's configuration would
#: travel to the sites.
COORDINATOR_VARIABLE = "FEDMEDLORA_COORDINATOR"
#: Keys of a SuperNode's configuration, which does not travel: the site's settings file, its name.
SETTINGS_KEY, SITE_KEY = "settings", "site"


def membership_file(folder: Path, site: str) -> Path:
    """What a site says of itself, in its own folder, another site's or the coordinator's."""
    return folder / f"{site}.membership.json"


@dataclass(frozen=True)
class CoordinatorFolder:
    """What ``federation init`` makes and ``federation start`` fills.

    Attributes:
        root: absolute.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """The coordinator's own settings."""
        return self.root / "federation.yaml"

    @property
    def study(self) -> Path:
        """The study file that all have."""
        return self.root / STUDY_FILE

    @property
    def identity(self) -> Path:
        """Which federation this is, since it was founded; see ``membership.federation_id``."""
        return self.root / "federation.id"

    @property
    def keys(self) -> Path:
        """Private: of the authority, the server, SuperExec and the coordinator."""
        return self.root / "keys"

    @property
    def authority(self) -> Path:
        """The authority's certificate, which all know."""
        return self.keys / "ca.pem"

    @property
    def secret(self) -> Path:
        """What SuperLink and SuperExec share."""
        return self.keys / "superexec.secret"

    @property
    def signing_key(self) -> Path:
        """The coordinator's private key for what it signs."""
        return self.keys / "signing.key"

    @property
    def sites(self) -> Path:
        """What the admitted sites say of themselves."""
        return self.root / "sites"

    def membership(self, site: str) -> Path:
        """What an admitted site says of itself; see ``membership``."""
        return membership_file(self.sites, site)

    @property
    def kits(self) -> Path:
        """What the sites get."""
        return self.root / "kits"

    @property
    def app(self) -> Path:
        """The Flower app."""
        return self.root / "app"

    @property
    def proxy(self) -> Path:
        """nginx's configuration."""
        return self.root / "nginx.conf"

    @property
    def compose(self) -> Path:
        """The container's configuration."""
        return self.root / "compose.yaml"

    @property
    def unit(self) -> Path:
        """The systemd unit."""
        return self.root / "systemd" / "fedmedlora-federation.service"

    @property
    def state(self) -> Path:
        """Flower's own: the SuperLink's database, unpacked apps, who is registered."""
        return self.root / "state"

    @property
    def flower_home(self) -> Path:
        """Flower's configuration and unpacked apps."""
        return self.state / "flwr"

    @property
    def database(self) -> Path:
        """The SuperLink's."""
        return self.state / "superlink.db"

    @property
    def registered(self) -> Path:
        """A file for every site that the SuperLink of this database knows."""
        return self.state / "registered"

    @property
    def node_public(self) -> Path:
        """A site's public key for the connection, for as long as it is being registered."""
        return self.state / "node.pub"

    @property
    def logs(self) -> Path:
        """Of the processes."""
        return self.root / "logs"

    @property
    def run(self) -> Path:
        """Checkpoints, records, the trained adapter."""
        return self.root / "run"


def refuse_other_folders(folder: CoordinatorFolder) -> None:
    """Refuse what is no coordinator's: a run folder and a site's have a study.yaml as well.

    Raises:
        ConfigError: it is none.
    """
    if not (folder.settings.is_file() and folder.study.is_file()):
        raise ConfigError(
            f"{folder.root}: is no folder that `federation init` made: it lacks "
            f"{folder.settings.name} or {STUDY_FILE}"
        )


@dataclass(frozen=True)
class SiteFolder:
    """What a kit holds, ``site unpack`` adds to and ``site start`` fills.

    Attributes:
        root: absolute.
    """

    root: Path

    @property
    def authority(self) -> Path:
        """The certificate of the coordinator's authority."""
        return self.root / "ca.pem"

    @property
    def coordinator(self) -> Path:
        """The coordinator's public key, which signs what the site is asked."""
        return self.root / "coordinator.pub"

    @property
    def node_key(self) -> Path:
        """The SuperNode's private key."""
        return self.root / "keys" / "node.key"

    @property
    def members(self) -> Path:
        """What the other sites say of themselves, SITE.membership.json each; where it is needed."""
        return self.root / "members"

    @property
    def signing_key(self) -> Path:
        """The site's private key for what it sends."""
        return self.root / "keys" / "signing.key"
