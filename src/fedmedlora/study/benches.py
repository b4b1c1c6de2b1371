"""What the arms of a study need of a model, whichever kind it is: the interface of its benches.

``lora_bench`` has LoRA adapters on a language model, ``tagger_bench`` a token classifier.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from fedmedlora.config import Study
from fedmedlora.federation.plan import SiteWorker
from fedmedlora.model.adapter import Adapter
from fedmedlora.schema import Document, Scheme
from fedmedlora.study.arms import Arm
from fedmedlora.study.data import SiteData
from fedmedlora.tasks.build import build_examples
from fedmedlora.tasks.example import Example
from fedmedlora.tasks.settings import TaskSettings


@dataclass(frozen=True)
class Base:
    """The frozen part of a model, and what training starts from.

    Attributes:
        fingerprint: SHA-256 (hex) of its weights.
        path: what transformers loads.
        parameters: how many it has, those that are trained included.
        initial: what round 1 broadcasts.
    """

    fingerprint: str
    path: str
    parameters: int
    initial: Adapter


@dataclass(frozen=True)
class Rows:
    """Encoded examples of a site; what a row is, its bench knows.

    Attributes:
        train, validation: rows.
        sources: of each training row, the id and the group of its note; empty where nobody asks.
        sites: how many sites' rows these are: so many times a site's steps are made.
    """

    train: Sequence[Any]
    validation: Sequence[Any] = ()
    sources: Sequence[tuple[str, str | None]] = ()
    sites: int = 1


class Bench(Protocol):
    """One kind of model at work for the arms of one study.

    Attributes:
        scheme: of the study.
        settings: how its models are asked.
    """

    scheme: Scheme
    settings: TaskSettings

    def base(self, study: Study) -> Base:
        """The base model under an arm's settings; loaded when it is first needed."""
        ...

    def forget(self) -> None:
        """Give back the model's memory; it is loaded again when it is next needed."""
        ...

    def encode(self, site: SiteData, study: Study) -> Rows:
        """A site's rows, made once.

        Raises:
            ConfigError: nothing is left to train on.
        """
        ...

    def worker(self, name: str, arm: Arm, rows: Rows, **more: Any) -> SiteWorker:
        """A site of the arm's federation."""
        ...

    def decode(
        self,
        study: Study,
        adapter: Adapter | None,
        examples: Sequence[Example],
        open_biases: Mapping[str, float],
        *,
        mode: str | None = None,
        on_done: Callable[[int], None] | None = None,
    ) -> list[str]:
        """Raw answers with ``adapter`` (None: untrained), in order."""
        ...

    def open_bias(self, study: Study) -> tuple[float | str, Sequence[float]]:
        """The arm's setting of the bias of opening a tag, and the candidates to choose from."""
        ...


def questions_about(
    documents: Sequence[Document],
    *,
    covers: frozenset[str],
    scheme: Scheme,
    settings: TaskSettings,
    tasks: Sequence[str] | None = None,
) -> list[Example]:
    """The questions of the study's tasks, or of some of them, about documents."""
    made, _ = build_examples(documents, covers=covers, scheme=scheme, settings=settings)
    return [one for one in made if tasks is None or one.task in tasks]
