"""Synthetic hospital sites: seeded notes of three styles with exact annotations.

Enters: a seed and sizes. Leaves: per site ``Document``s of the default scheme, split into train,
validation and test, and the vocabulary that only test notes use. The notes are made up: names are
real clinical words, put together at random. What the styles and their rules are and what they
measure is in docs/decisions/0003-synthetic-sites.md.
"""

from __future__ import annotations

from fedmedlora.corpus.synthetic.sites import (
    HELD_OUT_SHARE,
    STYLES,
    SiteDocuments,
    held_out_vocabulary,
    make_sites,
)

__all__ = ["HELD_OUT_SHARE", "STYLES", "SiteDocuments", "held_out_vocabulary", "make_sites"]
