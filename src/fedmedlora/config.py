"""The study file: YAML in, a checked ``Study`` out; every error names the key.

A study is data (sites and cohorts), a backbone, methods and their settings. Unknown keys are
refused, so that a misspelt setting cannot pass for one that was applied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from fedmedlora.errors import ConfigError, SchemaError
from fedmedlora.faults import describe_faults
from fedmedlora.schema import DEFAULT_SCHEME, Scheme
from fedmedlora.strict_yaml import load_yaml

Coverage = Literal["exhaustive", "partial", "none"]
Method = Literal[
    "zero-shot", "dictionary", "single-site", "fed-medlora", "fed-medlora+", "centralised"
]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Positive = Annotated[int, Field(ge=1)]
Place = Annotated[str, Field(min_length=1)]

#: The authors' projections: every linear layer of attention and MLP (arXiv 2601.22124).
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def _each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return names


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        for name, value in content.items() if isinstance(content, dict) else ():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            if isinstance(value, bool) and field is not None and field.annotation is not bool:
                raise ValueError(f"{name} cannot be true or false (yes, no, on and off are these)")
        return content


class SyntheticData(_Section):
    """Notes made by ``corpus.synthetic``: how many of each split."""

    style: Literal["icu", "outpatient", "discharge"]
    train: Positive
    validation: Positive
    test: Positive
    seed: int = 1


class Sample(_Section):
    """How many documents of each split to use, drawn by the study's seed; None is all."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class Cohort(_Section):
    """Notes to be scored on that no site trains on: an external cohort, or a new site's."""

    test: Place
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()


class Site(_Section):
    """A site's notes. Its test notes are a cohort of the same name.

    Attributes:
        train, validation, test: files or folders in any format that ``corpus.read`` knows,
            relative to the study's ``root``.
        annotates: type -> exhaustive, partial or none, or a list of the types annotated; by
            default the types that occur in the training notes.
        synthetic: instead of files.
        sample: see ``Sample``.
    """

    train: Place | None = None
    validation: Place | None = None
    test: Place | None = None
    synthetic: SyntheticData | None = None
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()

    @model_validator(mode="after")
    def _one_source(self) -> Site:
        files = [self.train, self.validation, self.test]
        if self.synthetic is None and None in files:
            raise ValueError("give the files train, validation and test, or synthetic")
        if self.synthetic is not None and any(files):
            raise ValueError("give either files or synthetic, not both")
        return self


class BackboneConfig(_Section):
    """Which backbone, and how its weights are held."""

    name: str = "embedded"
    precision: Literal["fp32", "bf16", "nf4"] = "fp32"


class AdapterConfig(_Section):
    """LoRA: the authors' rank, alpha and targets; ``all-linear`` is understood."""

    rank: Annotated[int, Field(ge=1, le=4096)] = 16
    alpha: Annotated[float, Field(gt=0)] = 64.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (
        PROJECTIONS
    )


class TaskConfig(_Section):
    """See ``tasks.settings.TaskSettings``."""

    tasks: Annotated[tuple[Literal["entities", "modifiers"], ...], Field(min_length=1)] = (
        "entities",
        "modifiers",
    )
    window_words: Positive = 40
    heads: Literal["marked", "numbered"] = "marked"
    prompt: Literal["full", "compact"] = "full"

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(tasks)


class TrainingConfig(_Section):
    """See ``model.training.TrainingSettings``; ``steps`` and ``epochs`` are a round's."""

    epochs: Annotated[float, Field(gt=0)] = 2.0
    steps: Positive | None = None
    batch: Positive = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Positive = 800
    gradient_checkpointing: bool = False
    objective: Literal["answer", "decisions"] = "answer"


class DecodingConfig(_Section):
    """See ``model.decoding.DecodingSettings``.

    ``open_bias: validation`` chooses it for every trained method from ``open_biases``, by strict
    F1 on the sites' validation notes.
    """

    mode: Literal["enforced", "free"] = "enforced"
    batch: Positive = 64
    draft: Positive = 8
    depth: Positive = 1
    open_bias: float | Literal["validation"] = 0.0
    open_biases: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 0.5, 1.0, 1.5)


class FederationConfig(_Section):
    """See ``federation.plan.FederationPlan``.

    ``engine``: the sites are called in the study's own process, or in those of Flower's simulation
    (``runtime.processes`` at a time; methods then run one after another). The results are equal.
    """

    rounds: Positive = 3
    beta: Annotated[float, Field(ge=0)] = 1.0
    tau: Annotated[float, Field(gt=0)] = 1.0
    validation: Literal["server", "sites"] = "sites"
    size: Literal["tokens", "examples"] = "tokens"
    wire: Literal["bf16", "fp32"] = "bf16"
    min_sites: Positive | None = None
    engine: Literal["in-process", "flower"] = "in-process"


class SchemeConfig(_Section):
    """A study's own scheme, instead of the default one."""

    mains: dict[str, str]
    modifiers: dict[str, str] = {}
    pairs: dict[str, list[str]] = {}


class RuntimeConfig(_Section):
    """Processes that run methods side by side, and threads of each."""

    # Torch dies without a word of thousands of threads.
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=256)] = 1


class Study(_Section):
    """A whole study; see the README for a first one.

    Attributes:
        name: for titles.
        root: folder that data paths start from; relative to the study file.
        seed: of everything random.
        server_validation: labelled notes at the server, for ``federation.validation: server``.
    """

    name: Annotated[str, Field(min_length=1, max_length=200)]
    root: str = "."
    seed: int = 7
    sites: Annotated[dict[Name, Site], Field(min_length=1)]
    cohorts: dict[Name, Cohort] = {}
    methods: Annotated[tuple[Method, ...], Field(min_length=1)]
    backbone: BackboneConfig = BackboneConfig()
    adapter: AdapterConfig = AdapterConfig()
    task: TaskConfig = TaskConfig()
    training: TrainingConfig = TrainingConfig()
    decoding: DecodingConfig = DecodingConfig()
    federation: FederationConfig = FederationConfig()
    runtime: RuntimeConfig = RuntimeConfig()
    scheme: SchemeConfig | None = None
    server_validation: Place | None = None

    @field_validator("methods")
    @classmethod
    def _once(cls, methods: tuple[str, ...]) -> tuple[str, ...]:
        return _each_once(methods)

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        both = set(self.sites) & set(self.cohorts)
        if both:
            raise ValueError(f"{', '.join(sorted(both))}: the same name for a site and a cohort")
        if "all" in self.sites or "all" in self.cohorts or "pooled" in self.sites:
            raise ValueError("'all' and 'pooled' are taken: choose another name")
        if self.federation.min_sites is not None and self.federation.min_sites > len(self.sites):
            raise ValueError("federation.min_sites is more than there are sites")
        if self.federation.validation == "server" and self.server_validation is None:
            raise ValueError("federation.validation is server, but server_validation is not given")
        scheme = self.make_scheme()
        reserved = sorted({"micro", "macro"} & set(scheme.types))
        if reserved:
            raise ValueError(f"scheme: {', '.join(reserved)} names a mean of scores, not a type")
        for kind, group in (("sites", self.sites), ("cohorts", self.cohorts)):
            for name, part in group.items():
                unknown = sorted(set(part.annotates or ()) - set(scheme.types))
                if unknown:
                    raise ValueError(
                        f"{kind}.{name}.annotates: {', '.join(unknown)} is not in the scheme"
                    )
        return self

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
    node: Any = content
    *path, last = key.split(".")
    for part in path:
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            raise ConfigError(f"--set {key}: {part!r} is not a section")
    node[last] = parsed


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
