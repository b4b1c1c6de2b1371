"""Labels in, kinds of methods out, and what readers call them."""

from __future__ import annotations

from collections.abc import Mapping

from fedmedlora.report.records import Method, MethodKind

#: In the order in which tables show them.
KIND_TITLES: Mapping[MethodKind, str] = {
    "untrained": "Untrained",
    "dictionary": "Dictionary of training mentions",
    "single": "One site alone",
    "federated": "Federated",
    "personal": "Federated, with a part of the site's own",
    "adapted": "Federated, then adapted to one site",
    "new-site": "New site",
    "centralised": "Pooled notes (which no federation could have)",
}
#: What a site gets by joining.
JOINED: frozenset[MethodKind] = frozenset({"federated", "personal", "adapted"})

_PLAIN: Mapping[str, MethodKind] = {
    "zero-shot": "untrained",
    "centralised": "centralised",
    "dictionary": "dictionary",
}


def derive_method(label: str) -> Method:
    """The kind and site that a label says, for runs that have no methods.json.

    ``single-site/NAME``, ``dictionary``, ``dictionary/NAME``, ``zero-shot`` and ``centralised``
    are what they say; every other label is a federated method.
    """
    name, _, site = label.partition("/")
    if name == "single-site" and site:
        return Method(label=label, kind="single", site=site)
    if name == "dictionary":
        return Method(label=label, kind="dictionary", site=site or None)
    return Method(label=label, kind=_PLAIN.get(label, "federated"))
