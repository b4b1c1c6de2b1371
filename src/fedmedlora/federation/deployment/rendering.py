"""Configuration files for others' programs (nginx, systemd, compose) and for people, from facts.

Every format has its own way of writing a text that may hold spaces, quotes or words of its own;
each is a filter here. What one of them cannot write at all is refused when the folder is made.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined

from fedmedlora.errors import ConfigError

_TEMPLATES = Environment(
    loader=PackageLoader("fedmedlora.federation.deployment"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    trim_blocks=True,
    autoescape=False,  # none of them is HTML
)
#: nginx has no way to write a dollar, the SuperLink's database ends its path at a question mark;
#: the others are control characters and what is no UTF-8.
_UNWRITABLE = re.compile("[$?\x00-\x1f\x7f-\x9f\ud800-\udfff]")


def refuse_unwritable(folder: Path) -> None:
    """Refuse a folder whose path some format has no way to write.

    Raises:
        ConfigError: naming the character.
    """
    found = _UNWRITABLE.search(str(folder))
    if found is not None:
        raise ConfigError(
            f"{str(folder)!r}: a coordinator's folder cannot have {found[0]!r} in its path: nginx "
            "or the SuperLink could not read it; choose another"
        )


def toml_text(value: object) -> str:
    """A TOML text: JSON's, but that it has no surrogates."""
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def _yaml(value: object) -> str:
    """A YAML text, whatever it looks like."""
    text = yaml.safe_dump(str(value), default_style='"', allow_unicode=True, width=float("inf"))
    return text.strip()


def _compose(value: object) -> str:
    """Compose puts variables in after YAML was read."""
    return _yaml(str(value).replace("$", "$$"))


def _quoted(value: object) -> str:
    """As nginx reads it, but for dollars."""
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _systemd(value: object) -> str:
    """One word of a unit."""
    return _quoted(value).replace("%", "%%")


def _argument(value: object) -> str:
    """One argument of a unit's command; not the program itself."""
    return _systemd(value).replace("$", "$$")


def _line(value: object) -> str:
    """A description: a line for people."""
    text = "".join(one if one.isprintable() else " " for one in str(value))
    return text.replace("%", "%%").replace("\\", "/")


def _plain(value: object) -> str:
    """A line of Markdown, in backticks."""
    return "".join(one if one.isprintable() else " " for one in str(value)).replace("`", "'")


_TEMPLATES.filters.update(
    {
        "yaml": _yaml,
        "compose": _compose,
        "nginx": _quoted,
        "systemd": _systemd,
        "argument": _argument,
        "line": _line,
        "plain": _plain,
    }
)


def render(name: str, **facts: object) -> str:
    """The text of a file.

    Args:
        name: of its template, without ``.j2``.
        facts: what the template names.
    """
    return _TEMPLATES.get_template(f"{name}.j2").render(facts)
