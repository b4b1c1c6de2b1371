"""YAML text in, plain data out; a key that is given twice is an error."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import yaml


def load_yaml(text: str) -> Any:
    """The content of a YAML document, by the safe loader.

    Raises:
        yaml.YAMLError: not YAML, or a repeated key; its ``problem_mark`` says where.
    """
    return yaml.load(text, Loader=_NoRepeats)


class _NoRepeats(yaml.SafeLoader):
    """YAML in which a repeated key is an error: the plain loader keeps the last in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if isinstance(key, Hashable) and key in seen:
                raise yaml.constructor.ConstructorError(
                    problem=f"the key {key!r} occurs twice", problem_mark=key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep=deep)
