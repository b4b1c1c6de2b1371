"""What a study does with its notes: methods and the sections of settings, as pydantic models."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, field_validator, model_validator

from fedmedlora.config_base import Label, Positive, Rank, Section, TaskName, each_once
from fedmedlora.config_privacy import OneLedger
from fedmedlora.config_secure import SecureConfig, refuse_with_secure, with_what_is_left

Method = Literal[
    "zero-shot",
    "few-shot",
    "api",
    "dictionary",
    "single-site",
    "fed-medlora",
    "fed-medlora+",
    "ffa-lora",
    "rolora",
    "fedsa-lora",
    "fedex-lora",
    "flexlora",
    "fedsvd",
    "fedprox",
    "fedavgm",
    "fedadam",
    "local-adaptation",
    "bert",
    "bert-single-site",
    "bert-centralised",
    "centralised",
]
#: What may differ between the methods of a study.
METHOD_SECTIONS = (
    "adapter", "training", "decoding", "federation", "privacy", "adaptation", "few_shot", "api",
    "encoder", "absent",
)  # fmt: skip

#: The authors' projections: every linear layer of attention and MLP (arXiv 2601.22124).
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


class MethodEntry(Section):
    """A method, which may have a label or settings of its own; its name alone will do.

    Attributes:
        method: its name.
        label: of its row; by default the name.
        set: ``key.of.a.section: value``, as ``--set`` takes them, for this method alone.
        of: of local-adaptation: the label of the trained method to start from.
    """

    method: Method
    label: Label = ""
    set: OneLedger = Field(default={})
    of: Label | None = None

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, content: Any) -> Any:
        content = {"method": content} if isinstance(content, str) else content
        if not isinstance(content, dict):
            raise ValueError("a method is a name, or a mapping such as {method: fed-medlora}")
        name = content.get("method")
        if isinstance(name, str):
            if name not in get_args(Method):
                near = get_close_matches(name[:60], get_args(Method), n=1)
                meant = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"{name[:60]!r} is none of {', '.join(get_args(Method))}{meant}")
            content = {"label": name, **content}
        return content

    @model_validator(mode="after")
    def _fits(self) -> MethodEntry:
        for key in self.set:
            if key.split(".")[0] not in METHOD_SECTIONS:
                raise ValueError(
                    f"set: {key} cannot differ between methods; these can: "
                    f"{', '.join(METHOD_SECTIONS)}"
                )
            if key in ("encoder", "encoder.name", "encoder.window_words"):
                raise ValueError(
                    f"set: {key} is one for all methods: a variant of the study may have another"
                )
        if self.of is not None and self.method != "local-adaptation":
            raise ValueError("of: only local-adaptation starts from another method")
        return self


class Variant(Section):
    """The study once more with other settings, in a run folder of its own.

    Attributes:
        set: ``key.of.a.section: value``, as ``--set`` takes them.
        methods: by default the study's.
    """

    set: OneLedger
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)] | None = None


class ScalingConfig(Section):
    """The same notes shared among few sites and many; the steps of all sites together stay.

    Attributes:
        sites: numbers of sites.
        methods: by default the study's.
        by, alpha: see ``PartitionConfig``.
        rate: of learning: ``"fixed"`` is the study's; ``"linear"`` is in proportion to the number
            of sites, so that rate times steps stays: sites that make fewer steps make longer ones.
    """

    sites: Annotated[tuple[Positive, ...], Field(min_length=1)]
    rate: Literal["fixed", "linear"] = "fixed"
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)] | None = None
    by: Literal["even", "group", "dirichlet"] = "even"
    alpha: Annotated[float, Field(ge=1e-4, le=1e6)] = 0.5


class BackboneConfig(Section):
    """Which backbone, and how its weights are held."""

    name: str = "embedded"
    precision: Literal["fp32", "bf16", "nf4"] = "fp32"


class AdapterConfig(Section):
    """LoRA: the authors' rank, alpha and targets; ``all-linear`` is understood."""

    rank: Rank = 16
    alpha: Annotated[float, Field(gt=0)] = 64.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1)] = (
        PROJECTIONS
    )


class TaskConfig(Section):
    """See ``tasks.settings.TaskSettings``."""

    tasks: Annotated[tuple[TaskName, ...], Field(min_length=1)] = (
        "entities",
        "modifiers",
    )
    window_words: Positive = 40
    heads: Literal["marked", "numbered"] = "marked"
    prompt: Literal["full", "compact"] = "full"

    @field_validator("tasks")
    @classmethod
    def _once(cls, tasks: tuple[str, ...]) -> tuple[str, ...]:
        return each_once(tasks)


class TrainingConfig(Section):
    """See ``model.training.TrainingSettings``; ``steps`` and ``epochs`` are a round's.

    ``gradient_checkpointing: auto``: where an estimate says that memory would not do without.
    """

    epochs: Annotated[float, Field(gt=0)] = 2.0
    steps: Positive | None = None
    batch: Positive = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-4
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_tokens: Positive = 800
    gradient_checkpointing: bool | Literal["auto"] = "auto"
    objective: Literal["answer", "decisions"] = "answer"
    schedule: Literal["round", "run"] = "round"
    keep_optimiser: bool = False


class DecodingConfig(Section):
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


class ServerConfig(Section):
    """See ``aggregation.server_optimiser.ServerOptions``.

    ``learning_rate``: by default 1, and 0.01 for fedadam. ``momentum``: by default 0, the plain
    average, and 0.9 for fedavgm.
    """

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] | None = None
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    adaptivity: Annotated[float, Field(gt=0)] = 1e-3


class ScreeningConfig(Section):
    """See ``aggregation.outliers.ScreeningOptions``."""

    norms: Literal["refuse", "flag", "off"] = "refuse"
    directions: Literal["refuse", "flag", "off"] = "flag"
    riders: Literal["refuse", "flag", "off"] = "flag"
    largest_norm: Annotated[float, Field(gt=1)] = 10.0
    smallest_norm: Annotated[float, Field(ge=0, lt=1)] = 0.01
    least_agreement: Annotated[float, Field(gt=0, lt=1)] = 0.03
    least_share: Annotated[float, Field(ge=-1, le=1)] = 0.1
    same: Annotated[float, Field(gt=0, le=1)] = 0.9


class RobustConfig(Section):
    """See ``aggregation.robust.RobustOptions``."""

    rule: Literal["none", "median", "trimmed-mean", "krum", "clip"] = "none"
    malicious: Positive = 1
    select: Positive | None = None
    clip: Annotated[float, Field(gt=0)] = 1.0


class FederationConfig(Section):
    """See ``federation.plan.FederationPlan``.

    ``engine``: the sites are called in the study's own process, or in those of Flower's simulation
    (``runtime.processes`` at a time; methods then run one after another). The results are equal.
    ``deadline_seconds``: for the answers of one phase of a round. ``proximal``: mu of fedprox.
    ``refactor_every``: rounds between the new factors of fedsvd.
    ``validation_rows``: so many of the examples made of validation notes score the candidates of
    Fed-MedLoRA+, drawn once by the seed; all if not given. ``keep_replies``: what the sites sent is
    kept, so that ``fedmedlora verify`` can make every round again. ``secure_aggregation``: with it,
    what looks at one site's update is off where nothing is said of it, and refused where it is.
    """

    rounds: Positive = 3
    beta: Annotated[float, Field(ge=0)] = 1.0
    tau: Annotated[float, Field(gt=0)] = 1.0
    validation: Literal["server", "sites"] = "sites"
    validation_rows: Positive | None = None
    size: Literal["tokens", "examples"] = "tokens"
    wire: Literal["bf16", "fp32", "int8", "int4"] = "bf16"
    min_sites: Positive | None = None
    deadline_seconds: Annotated[float, Field(gt=0)] | None = None
    screening: ScreeningConfig = ScreeningConfig()
    robust: RobustConfig = RobustConfig()
    engine: Literal["in-process", "flower"] = "in-process"
    proximal: Annotated[float, Field(gt=0)] = 0.01
    keep_replies: bool = False
    refactor_every: Positive = 1
    server: ServerConfig = ServerConfig()
    secure_aggregation: SecureConfig | None = None

    @model_validator(mode="before")
    @classmethod
    def _off_where_silent(cls, content: Any) -> Any:
        return with_what_is_left(content)

    @model_validator(mode="after")
    def _sums_alone(self) -> FederationConfig:
        refuse_with_secure(self.model_dump())
        return self


class AdaptationConfig(Section):
    """How a trained adapter is trained further on one site's notes: one round of this."""

    epochs: Annotated[float, Field(gt=0)] = 2.0
    steps: Positive | None = None
    learning_rate: Annotated[float, Field(gt=0)] | None = None


class EncoderConfig(Section):
    """The token classifier of the bert methods; see ``model.tagger_training.TaggerSettings``.

    ``name``: what transformers loads; emilyalsentzer/Bio_ClinicalBERT is the paper's.
    """

    name: str = "embedded"
    epochs: Annotated[float, Field(gt=0)] = 3.0
    steps: Positive | None = None
    batch: Positive = 16
    learning_rate: Annotated[float, Field(gt=0)] = 5e-5
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_tokens: Annotated[int, Field(ge=8)] = 512
    schedule: Literal["round", "run"] = "round"
    keep_optimiser: bool = False
    window_words: Positive = 40
    open_bias: float | Literal["validation"] = 0.0
    open_biases: Annotated[tuple[float, ...], Field(min_length=1)] = (0.0, 0.5, 1.0, 1.5)


class FewShotConfig(Section):
    """How many worked examples of training notes a few-shot prompt shows, at most."""

    examples: Positive = 4


class ApiConfig(Section):
    """See ``model.chat_settings.ChatSettings``; address, model and key come from the environment.

    ``allow_egress``: notes leave only if it is true, or for the cohorts that it names. ``examples``
    above 0 makes the prompts few-shot.
    """

    model: str = ""
    model_variable: str = "OPENAI_MODEL"
    base_url_variable: str = "OPENAI_BASE_URL"
    key_variable: str = "OPENAI_API_KEY"
    allow_egress: bool | tuple[str, ...] = False
    temperature: Annotated[float, Field(ge=0, le=2)] | None = 0.0
    max_tokens: Positive = 1024
    limit_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    concurrency: Positive = 4
    timeout_seconds: Annotated[float, Field(gt=0)] = 120.0
    retries: Annotated[int, Field(ge=0)] = 6
    usd_per_million_prompt: Annotated[float, Field(ge=0)] | None = None
    usd_per_million_completion: Annotated[float, Field(ge=0)] | None = None
    examples: Annotated[int, Field(ge=0)] = 0


class EvaluationConfig(Section):
    """What is computed beside the table.

    ``by_round``: score the adapter of every round on the sites' validation notes; a number n is
    every n-th round and the last.
    """

    by_round: bool | Positive = False


class ReportConfig(Section):
    """``include_text``: whether the report may hold notes; else it has ids and counts alone."""

    include_text: bool = False


class SchemeConfig(Section):
    """A study's own scheme, instead of the default one."""

    mains: dict[str, str]
    modifiers: dict[str, str] = Field(default={})
    pairs: dict[str, list[str]] = Field(default={})


class RuntimeConfig(Section):
    """Processes that run methods side by side, or the sites of each method; threads of each."""

    # Torch dies without a word of thousands of threads.
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    site_processes: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=256)] = 1
