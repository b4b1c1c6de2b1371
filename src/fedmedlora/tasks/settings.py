"""How documents become examples: which tasks, how long a window, which prompt."""

from __future__ import annotations

from dataclasses import dataclass

from fedmedlora.errors import ConfigError

TASKS = ("entities", "modifiers")
HEADS = ("marked", "numbered")
PROMPTS = ("full", "compact")


@dataclass(frozen=True, slots=True)
class TaskSettings:
    """The choices that shape prompts and answers; a model must be asked as it was trained.

    Attributes:
        tasks: ``"entities"``, ``"modifiers"`` or both, in the order in which examples are made.
        window_words: a window packs whole sentences up to this many words; at least 1.
        heads: how an answer says whose a modifier is: ``"marked"``, one prompt a main entity;
            ``"numbered"``, one prompt a window, and tags that name the entity's number.
        prompt: ``"full"``, with markup guide and definitions as in the paper; ``"compact"``, one
            line with the asked types.

    Raises:
        ConfigError: a value outside these.
    """

    tasks: tuple[str, ...] = TASKS
    window_words: int = 40
    heads: str = "marked"
    prompt: str = "full"

    def __post_init__(self) -> None:
        unknown = [task for task in self.tasks if task not in TASKS]
        if not self.tasks or unknown or len(set(self.tasks)) < len(self.tasks):
            raise ConfigError(
                f"tasks: {list(self.tasks)!r} must be one or both of {', '.join(TASKS)}"
            )
        if self.window_words < 1:
            raise ConfigError(f"window_words: {self.window_words!r} must be at least 1")
        if self.heads not in HEADS:
            raise ConfigError(f"heads: {self.heads!r} is not one of {', '.join(HEADS)}")
        if self.prompt not in PROMPTS:
            raise ConfigError(f"prompt: {self.prompt!r} is not one of {', '.join(PROMPTS)}")
