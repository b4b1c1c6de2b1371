"""Configuration files for others' programs (nginx, systemd, compose) and for people, from facts."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

_TEMPLATES = Environment(
    loader=PackageLoader("fedmedlora.federation.deployment"),
    undefined=StrictUndefined,
    keep_trailing_newline=True,
    autoescape=False,  # none of them is HTML
)


def render(name: str, **facts: object) -> str:
    """The text of a file.

    Args:
        name: of its template, without ``.j2``.
        facts: what the template names.
    """
    return _TEMPLATES.get_template(f"{name}.j2").render(facts)
