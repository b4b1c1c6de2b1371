"""The sections of a study file, as pydantic models; ``config`` puts them together."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Coverage = Literal["exhaustive", "partial", "none"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}$")]
Positive = Annotated[int, Field(ge=1)]
Place = Annotated[str, Field(min_length=1)]
Rank = Annotated[int, Field(ge=1, le=4096)]
TaskName = Literal["entities", "modifiers"]
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
    "adapter", "training", "decoding", "federation", "adaptation", "few_shot", "api", "encoder",
    "absent",
)  # fmt: skip

#: The authors' projections: every linear layer of attention and MLP (arXiv 2601.22124).
PROJECTIONS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


def each_once(names: tuple[str, ...]) -> tuple[str, ...]:
    """The names, or ValueError for one that is there twice."""
    for name in names:
        if names.count(name) > 1:
            raise ValueError(f"{name} is named twice")
    return names


def _may_be_bool(annotation: Any) -> bool:
    return annotation is bool or bool in get_args(annotation)


class Section(BaseModel):
    """What every section has: unknown keys and true or false for a number are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, content: Any) -> Any:
        for name, value in content.items() if isinstance(content, dict) else ():
            field = cls.model_fields.get(name) if isinstance(name, str) else None
            if isinstance(value, bool) and field is not None and not _may_be_bool(field.annotation):
                raise ValueError(f"{name} cannot be true or false (yes, no, on and off are these)")
        return content


class SyntheticData(Section):
    """Notes made by ``corpus.synthetic``: how many of each split."""

    style: Literal["icu", "outpatient", "discharge"]
    train: Positive
    validation: Positive
    test: Positive
    seed: int = 1


class Sample(Section):
    """How many documents of each split to use, drawn by the study's seed; None is all."""

    train: Positive | None = None
    validation: Positive | None = None
    test: Positive | None = None


class Cohort(Section):
    """Notes to be scored on that no site trains on: an external cohort, or a new site's."""

    test: Place
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()


class SiteAdapter(Section):
    """A rank of a site's own, at most the study's; see ``AdapterConfig``."""

    rank: Rank
    alpha: Annotated[float, Field(gt=0)]


class Site(Section):
    """A site's notes. Its test notes are a cohort of the same name.

    Attributes:
        train, validation, test: files or folders in any format that ``corpus.read`` knows,
            relative to the study's ``root``.
        annotates: type -> exhaustive, partial or none, or a list of the types annotated; by
            default the types that occur in the training notes.
        synthetic: instead of files.
        sample: see ``Sample``.
        strip: types whose annotation is taken away from the training and validation notes, as if
            its annotators had never looked for them. Test notes keep theirs.
        tasks: the study's tasks that this site takes part in; by default all.
        adapter: rank and alpha of its own, for methods that combine mixed ranks.
    """

    train: Place | None = None
    validation: Place | None = None
    test: Place | None = None
    synthetic: SyntheticData | None = None
    annotates: dict[str, Coverage] | list[str] | None = None
    sample: Sample = Sample()
    strip: tuple[str, ...] = ()
    tasks: tuple[TaskName, ...] | None = None
    adapter: SiteAdapter | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Site:
        files = [self.train, self.validation, self.test]
        if self.synthetic is None and None in files:
            raise ValueError("give the files train, validation and test, or synthetic")
        if self.synthetic is not None and any(files):
            raise ValueError("give either files or synthetic, not both")
        return self


class NewSite(Site):
    """A site that did not take part, with a few notes of its own.

    Its test notes are a cohort. Every adapter of ``of`` is trained further on the first n of its
    training notes, in an order drawn by the seed.

    Attributes:
        notes: each n.
        of: the labels of trained methods to start from; by default every federated one.
        from_scratch: whether to train from nothing on the same notes as well.
    """

    notes: Annotated[tuple[Positive, ...], Field(min_length=1)]
    of: tuple[Label, ...] | None = None
    from_scratch: bool = True


class PartitionConfig(Section):
    """The sites' training and validation notes pooled and shared anew among equal sites.

    Attributes:
        sites: how many.
        by: ``even`` deals documents at random, ``group`` keeps groups whole, ``dirichlet`` draws
            label shares (uneven sites) and keeps groups whole.
        alpha: of the Dirichlet distribution; small is uneven.
    """

    sites: Positive
    by: Literal["even", "group", "dirichlet"] = "even"
    alpha: Annotated[float, Field(ge=1e-4, le=1e6)] = 0.5


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
    set: dict[str, Any] = {}
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
                raise ValueError(f"{name[:60]!r} is none of {', '.join(get_args(Method))}")
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
        if self.of is not None and self.method != "local-adaptation":
            raise ValueError("of: only local-adaptation starts from another method")
        return self


class Variant(Section):
    """The study once more with other settings, in a run folder of its own.

    Attributes:
        set: ``key.of.a.section: value``, as ``--set`` takes them.
        methods: by default the study's.
    """

    set: dict[str, Any]
    methods: Annotated[tuple[MethodEntry, ...], Field(min_length=1)] | None = None


class ScalingConfig(Section):
    """The same notes shared among few sites and many; the steps of all sites together stay.

    Attributes:
        sites: numbers of sites.
        methods: by default the study's.
        by, alpha: see ``PartitionConfig``.
    """

    sites: Annotated[tuple[Positive, ...], Field(min_length=1)]
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
    round_decay: Annotated[float, Field(gt=0, le=1)] = 1.0


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
    """See ``aggregation.server_optimiser.ServerOptions``: for fedavgm and fedadam.

    ``learning_rate``: by default 1 for fedavgm and 0.01 for fedadam.
    """

    learning_rate: Annotated[float, Field(gt=0)] | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_1: Annotated[float, Field(ge=0, lt=1)] = 0.9
    beta_2: Annotated[float, Field(ge=0, lt=1)] = 0.99
    adaptivity: Annotated[float, Field(gt=0)] = 1e-3


class FederationConfig(Section):
    """See ``federation.plan.FederationPlan``.

    ``engine``: the sites are called in the study's own process, or in those of Flower's simulation
    (``runtime.processes`` at a time; methods then run one after another). The results are equal.
    ``proximal``: mu of fedprox.
    """

    rounds: Positive = 3
    beta: Annotated[float, Field(ge=0)] = 1.0
    tau: Annotated[float, Field(gt=0)] = 1.0
    validation: Literal["server", "sites"] = "sites"
    size: Literal["tokens", "examples"] = "tokens"
    wire: Literal["bf16", "fp32"] = "bf16"
    min_sites: Positive | None = None
    engine: Literal["in-process", "flower"] = "in-process"
    proximal: Annotated[float, Field(gt=0)] = 0.01
    server: ServerConfig = ServerConfig()


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

    ``by_round``: score the adapter of every round on the sites' validation notes.
    """

    by_round: bool = False


class ReportConfig(Section):
    """``include_text``: whether the report may hold notes; else it has ids and counts alone."""

    include_text: bool = False


class SchemeConfig(Section):
    """A study's own scheme, instead of the default one."""

    mains: dict[str, str]
    modifiers: dict[str, str] = {}
    pairs: dict[str, list[str]] = {}


class RuntimeConfig(Section):
    """Processes that run methods side by side, and threads of each."""

    # Torch dies without a word of thousands of threads.
    processes: Annotated[int, Field(ge=1, le=256)] = 1
    threads: Annotated[int, Field(ge=1, le=256)] = 1
