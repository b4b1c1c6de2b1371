"""The settings of one machine of a federation: a coordinator's or a site's file in, checked out.

What the study fixes for all is not here: it is in the study file that all have.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import AfterValidator, Field, ValidationError, model_validator

from fedmedlora.config_base import Name, Place, Positive, Section
from fedmedlora.config_data import Site
from fedmedlora.errors import ConfigError
from fedmedlora.faults import describe_faults
from fedmedlora.strict_yaml import load_yaml

Port = Annotated[int, Field(ge=1, le=65535)]


def _host(text: str) -> str:
    """A name or an address, in the one writing that certificates have."""
    if "%" not in text:  # no zone of one machine's own
        try:
            return str(ipaddress.ip_address(text))
        except ValueError:
            pass
    if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", text) is None:
        raise ValueError(
            "must be a name or an address by which sites reach this machine, without a port: "
            "letters, digits, '.' and '-', or an IPv6 address without brackets"
        )
    return text


Host = Annotated[str, AfterValidator(_host)]

AnySection = TypeVar("AnySection", bound=Section)


class CoordinatorSettings(Section):
    """federation.yaml of a coordinator's folder.

    Attributes:
        host: name or address by which the sites reach the coordinator.
        port: where the proxy listens for them.
        superlink_port: where Flower's SuperLink listens, on this machine alone.
        proxy: whether ``federation start`` runs nginx; without, the SuperLink itself must be
            reachable, and whoever holds a kit reaches more than a site needs.
        wait_minutes: how long a start waits for all sites, and each round for its quorum.
        threads: of this machine, for loading the backbone.
    """

    host: Host
    port: Port = 9443
    superlink_port: Port = 9092
    proxy: Literal["nginx", "none"] = "nginx"
    wait_minutes: Annotated[float, Field(ge=0)] = 60.0
    threads: Positive = 1

    @property
    def public_port(self) -> int:
        """The port that sites connect to."""
        return self.superlink_port if self.proxy == "none" else self.port

    @property
    def address(self) -> str:
        """host:port as the sites connect to it."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.public_port}"

    @model_validator(mode="after")
    def _superlink_on_ipv4(self) -> CoordinatorSettings:
        if self.proxy == "none" and ":" in self.host:
            raise ValueError(
                "proxy: none and an IPv6 address: the SuperLink listens on IPv4 alone; let nginx "
                "stand before it, or give a name"
            )
        return self


class SiteSettings(Section):
    """site.yaml of a site's folder. Paths are relative to it.

    Attributes:
        name: of the site in the study.
        coordinator: host:port; an IPv6 address is in brackets.
        notes: its notes, as a site of a study file has them.
        study: the study file of the kit.
        backbone: where the study's backbone is on this machine, if not where the study says.
        device: "auto" is a GPU if there is one, "cpu" none, else its number.
        threads: of the training process.
        port: where the SuperNode listens, on this machine alone.
        work: folder for logs and what the site keeps for itself.
        ledger: folder in which it keeps what was spent of its notes' privacy, over all federations;
            asked for where the study has ``privacy.epsilon``. The same for every kit of this site.
        largest_epsilon, largest_delta, smallest_unit: a study that promises less (more of either,
            a smaller unit, or nothing) is refused; must be given with ``ledger``, since epsilon
            alone bounds nothing that a coordinator could not choose.
    """

    name: Name
    coordinator: Annotated[
        str, Field(pattern=r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9][A-Za-z0-9.-]*):[0-9]{1,5}$")
    ]
    notes: Site = Site()
    study: Place = "study.yaml"
    backbone: Place | None = None
    device: Annotated[str, Field(pattern=r"^(auto|cpu|[0-9]+)$")] = "auto"
    threads: Positive = 1
    port: Port = 9094
    work: Place = "work"
    ledger: Place | None = None
    largest_epsilon: Annotated[float, Field(gt=0)] | None = None
    largest_delta: Annotated[float, Field(gt=0, lt=1)] | None = None
    smallest_unit: Literal["example", "note", "patient"] | None = None

    @model_validator(mode="after")
    def _own_bounds(self) -> SiteSettings:
        names = ("largest_epsilon", "largest_delta", "smallest_unit")
        missing = [name for name in names if getattr(self, name) is None]
        if self.ledger is not None and missing:
            raise ValueError(
                f"ledger: {', '.join(missing)} must be given with it: what the notes may cost in "
                "all is this site's to say, and every study within it is let in"
            )
        return self


def load_coordinator(file: Path) -> CoordinatorSettings:
    """Read a coordinator's settings.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is wrong.
    """
    return check_settings(CoordinatorSettings, read_mapping(file), source=str(file))


def load_site(file: Path) -> SiteSettings:
    """Read a site's settings; errors as of ``load_coordinator``."""
    return check_settings(SiteSettings, read_mapping(file), source=str(file))


def read_mapping(file: Path) -> dict[str, Any]:
    """The content of a YAML file that is a mapping of keys.

    Raises:
        ConfigError: it is missing, unreadable, or something else.
    """
    try:
        content = load_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ConfigError(f"{file}: there is no such file") from error
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark else str(file)
        raise ConfigError(f"{place}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: must be a mapping of keys")
    return content


def check_settings(
    kind: type[AnySection], content: Mapping[str, Any], *, source: str
) -> AnySection:
    """Settings from their content.

    Raises:
        ConfigError: naming every wrong key of ``source``.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe_faults(error)}") from error
