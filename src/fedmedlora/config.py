"""The study file: YAML in, a checked ``Study`` out; every error names the key.

A study is data (sites and cohorts), a backbone, methods and their settings. Unknown keys are
refused, so that a misspelt setting cannot pass for one that was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, model_validator

from fedmedlora.config_base import Name, Place, Section
from fedmedlora.config_data import Cohort, NewSite, PartitionConfig, Site
from fedmedlora.config_leakage import LeakageConfig
from fedmedlora.config_privacy import PrivacyConfig
from fedmedlora.config_sections import (
    AdaptationConfig,
    AdapterConfig,
    ApiConfig,
    BackboneConfig,
    DecodingConfig,
    EncoderConfig,
    EvaluationConfig,
    FederationConfig,
    FewShotConfig,
    MethodEntry,
    ReportConfig,
    RuntimeConfig,
    ScalingConfig,
    SchemeConfig,
    TaskConfig,
    TrainingConfig,
    Variant,
)
from fedmedlora.errors import ConfigError, SchemaError
from fedmedlora.faults import describe_faults
from fedmedlora.schema import DEFAULT_SCHEME, Scheme
from fedmedlora.strict_yaml import load_yaml


class Study(Section):
    """A whole study; see the README for a first one.

    Attributes:
        name: for titles.
        root: folder that data paths start from; relative to the study file.
        seed: of everything random.
        data_seed: of the samples and the partition; by default ``seed``.
        seeds: the whole study is run with each of these, the first in the run folder itself.
        partition: share the sites' notes anew; the sites then are site-1, site-2 and so on.
        new_sites: sites that join with a few notes after the training.
        methods: names, or mappings with a label and settings of their own.
        absent: what a type is where a site does not annotate it: ``unknown`` (not asked for), or
            ``negative``, as if it had been looked for and not found: only to show what that costs.
        scaling, variants: the study again with other numbers of sites, or other settings.
        server_validation: labelled notes at the server, for ``federation.validation: server``.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    root: str = "."
    seed: int = 7
    sites: Annotated[dict[Name, Site], Field(min_length=1)]
    data_seed: int | None = None
    seeds: tuple[int, ...] = ()
    partition: PartitionConfig | None = None
    cohorts: dict[Name, Cohort] = Field(default={})
    new_sites: dict[Name, NewSite] = Field(default={})
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)]
    absent: Literal["unknown", "negative"] = "unknown"
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    task: TaskConfig = TaskConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()
    federation: FederationConfig = FederationConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    adaptation: AdaptationConfig = AdaptationConfig()
    encoder: EncoderConfig = EncoderConfig()
    few_shot: FewShotConfig = FewShotConfig()
    api: ApiConfig = ApiConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    leakage: LeakageConfig = LeakageConfig()
    report: ReportConfig = ReportConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    scaling: ScalingConfig | None = None
    variants: dict[Name, Variant] = Field(default={})
    scheme: SchemeConfig | None = None
    server_validation: Place | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        groups: dict[str, Mapping[str, Site | Cohort]] = {
            "sites": self.sites,
            "cohorts": self.cohorts,
            "new_sites": self.new_sites,
        }
        names = [name for group in groups.values() for name in group]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"{name}: the same name for two of sites, cohorts and new_sites")
        if "all" in names or "pooled" in names:
            raise ValueError("'all' and 'pooled' are taken: choose another name")
        if (self.federation.min_sites or 0) > len(self.site_names):
            raise ValueError("federation.min_sites is more than there are sites")
        if self.federation.validation == "server" and self.server_validation is None:
            raise ValueError("federation.validation is server, but server_validation is not given")
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: one is named twice")
        labels = [entry.label for entry in self.methods]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"methods: {label} is named twice; give one of them a label")
        self._check_types(groups)
        self._check_ranks()
        self._check_processes()
        return self

    def _check_processes(self) -> None:
        if self.runtime.site_processes == 1:
            return
        if self.federation.engine == "flower":
            raise ValueError(
                "runtime.site_processes is for the in-process engine; flower's sites run in "
                "runtime.processes"
            )
        if self.runtime.processes > 1:
            raise ValueError(
                "runtime: processes runs methods side by side, site_processes the sites of one; "
                "set one of them above 1, not both"
            )

    def _check_types(self, groups: Mapping[str, Mapping[str, Site | Cohort]]) -> None:
        scheme = self.make_scheme()
        reserved = sorted({"micro", "macro"} & set(scheme.types))
        if reserved:
            raise ValueError(f"scheme: {', '.join(reserved)} names a mean of scores, not a type")
        for kind, group in groups.items():
            for name, part in group.items():
                named = {"annotates": part.annotates or (), "strip": getattr(part, "strip", ())}
                for key, types in named.items():
                    unknown = sorted(set(types) - set(scheme.types))
                    if unknown:
                        raise ValueError(
                            f"{kind}.{name}.{key}: {', '.join(unknown)} is not in the scheme, "
                            f"whose types are {', '.join(scheme.types)}"
                        )

    def _check_ranks(self) -> None:
        for name, site in self.sites.items():
            if site.adapter is None:
                continue
            if self.partition is not None:
                raise ValueError(f"sites.{name}.adapter: with partition, all sites are new ones")
            if site.adapter.rank > self.adapter.rank:
                raise ValueError(
                    f"sites.{name}.adapter.rank is {site.adapter.rank}, more than adapter.rank "
                    f"({self.adapter.rank}), which is the global adapter's"
                )

    @property
    def site_names(self) -> tuple[str, ...]:
        """The sites that train: of the study file, or of its partition."""
        if self.partition is None:
            return tuple(self.sites)
        return tuple(f"site-{number}" for number in range(1, self.partition.sites + 1))

    def with_settings(self, settings: Mapping[str, Any], *, where: str) -> Study:
        """The study with ``key.of.a.section: value`` changes.

        Args:
            where: for errors: where the settings stand.

        Raises:
            ConfigError: a key or value is wrong.
        """
        # Not what is a default: another setting may change that.
        content = self.model_dump(mode="json", exclude_none=True, exclude_unset=True)
        for key, value in settings.items():
            _place(content, key, value, where=where)
        return check_study(content, source=where)

    def make_scheme(self) -> Scheme:
        """The study's scheme."""
        if self.scheme is None:
            return DEFAULT_SCHEME
        return Scheme(
            self.scheme.mains,
            self.scheme.modifiers,
            {main: tuple(types) for main, types in self.scheme.pairs.items()},
        )


def covered(annotates: Mapping[str, str] | Sequence[str] | None) -> frozenset[str] | None:
    """The types of an ``annotates`` that are annotated at all; None if it is not given."""
    if annotates is None:
        return None
    if isinstance(annotates, Mapping):
        return frozenset(name for name, level in annotates.items() if level != "none")
    return frozenset(annotates)


def _override(content: dict[str, Any], setting: str) -> None:
    key, sign, value = setting.partition("=")
    if not sign or not key:
        raise ConfigError(f"--set {setting!r} is not of the form key=value, such as seed=3")
    try:
        parsed = load_yaml(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {key}: the value is not YAML") from error
    _place(content, key, parsed, where="--set")


def _place(content: dict[str, Any], key: str, value: Any, *, where: str) -> None:
    node: Any = content
    *path, last = key.split(".")
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"{where} {key}: {part!r} is not a section")
    node[last] = value


def load_study(path: Path, overrides: Sequence[str] = ()) -> Study:
    """Read a study file and apply ``key.of.a.section=value`` settings to it.

    Raises:
        ConfigError: the file is missing, is not YAML, or a key or value is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such study file") from error
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: cannot be read as UTF-8 text") from error
    try:
        content = load_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        problem = getattr(error, "problem", None) or error
        raise ConfigError(f"{place}: not YAML: {problem}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: a study file is a mapping of keys, such as 'name: first'")
    for setting in overrides:
        _override(content, setting)
    if isinstance(root := content.get("root", "."), str):
        content["root"] = _absolute(root, start=path.parent)
    return check_study(content, source=str(path))


def _absolute(root: str, *, start: Path) -> str:
    try:
        folder = Path(root).expanduser()
        return str(folder if folder.is_absolute() else (start / folder).resolve())
    except (RuntimeError, ValueError) as error:  # no such user, a NUL
        raise ConfigError(f"root: {root!r} is no path of a folder") from error


def check_study(content: Mapping[str, Any], *, source: str) -> Study:
    """A study from its content.

    Raises:
        ConfigError: naming every wrong key of ``source``.
    """
    try:
        return Study.model_validate(content)
    except ValidationError as error:
        raise ConfigError(f"{source}: {describe_faults(error)}") from error
    except SchemaError as error:
        raise ConfigError(f"{source}: scheme: {error}") from error
