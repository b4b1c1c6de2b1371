"""YAML text in, plain data out; a key that is given twice is an error, as are endless aliases."""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Any

import yaml

#: Values of a document with its aliases written out: a few lines of them can stand for billions.
_MOST_VALUES = 100_000


def load_yaml(text: str) -> Any:
    """The content of a YAML document, by the safe loader.

    Raises:
        yaml.YAMLError: not YAML, a repeated key, aliases that stand for more than 100,000 values
            (or for themselves), or a value that is not what its form or its tag
            says; its ``problem_mark`` says where.
    """
    try:
        return yaml.load(text, Loader=_NoRepeats)
    except RecursionError:
        raise yaml.YAMLError("it is nested too deep") from None


class _NoRepeats(yaml.SafeLoader):
    """YAML in which a repeated key is an error: the plain loader keeps the last in silence."""

    def get_single_node(self) -> yaml.Node | None:
        node = super().get_single_node()
        if node is not None and _values(node, {}) > _MOST_VALUES:
            raise _fault("with its aliases written out it is too large: write less of it", node)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _fault("a key must be a word or a number, not a list or a mapping", key_node)
            if key_node.tag == "tag:yaml.org,2002:merge":
                raise _fault("'<<' is not understood here: write the keys out", key_node)
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise _fault(f"the key {key!r} occurs twice", key_node)
            seen.add(key)
        return super().construct_mapping(node, deep=deep)

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, KeyError, AttributeError, OverflowError):
            # The safe loader lets through what int(), float() and date() say of a scalar.
            kind = node.tag.rpartition(":")[2]
            raise _fault(f"the value has the form of a {kind} but is none", node) from None


def _values(node: yaml.Node, known: dict[int, float]) -> float:
    """How many values a node stands for; infinite if it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.MappingNode):
            inner = [part for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            inner = node.value
        known[id(node)] = 1 + sum([_values(part, known) for part in inner])
    return known[id(node)]


def _fault(problem: str, node: yaml.Node) -> yaml.YAMLError:
    return yaml.constructor.ConstructorError(problem=problem, problem_mark=node.start_mark)
