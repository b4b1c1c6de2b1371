"""What the embedded backbone saw and what it is for, as CARD.md beside its weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from fedmedlora.corpus.synthetic import held_out_vocabulary

_TERM_WORD = re.compile(r"\w+")


def held_out_in(texts: Iterable[Sequence[str]]) -> tuple[int, int]:
    """How many held-out terms of the synthetic test notes occur in ``texts``, and of how many.

    Args:
        texts: as words; punctuation is passed over.
    """
    by_first: dict[str, list[tuple[str, ...]]] = {}
    terms = {tuple(_TERM_WORD.findall(term)) for term in held_out_vocabulary()}
    for term in terms:
        by_first.setdefault(term[0], []).append(term)
    seen: set[tuple[str, ...]] = set()
    for text in texts:
        words = [word for word in text if _TERM_WORD.match(word)]
        for at, word in enumerate(words):
            for term in by_first.get(word, ()):
                if tuple(words[at : at + len(term)]) == term:
                    seen.add(term)
    return len(seen), len(terms)


_CARD = """# The embedded backbone

A Llama of {parameters:,} parameters ({hidden} wide, {layers} layers, {vocabulary} tokens, tied
embeddings) that ships with fedmedlora, so that anyone can run the whole of it on two CPU cores.
It copies a text and marks up parts of it; an adapter teaches it what to mark. It is not a language
model for any other use, and no clinical use at all.

## What it saw
- MedQuAD (Ben Abacha and Demner-Fushman, BMC Bioinformatics 2019; CC BY 4.0): {documents:,} topics
  of NIH and CDC web sites, {words_of_open_text:,} words, cut into {segments:,} sentences; and the
  names, synonyms and UMLS semantic types of its topics. It is text about diseases for the public:
  no notes of any patient.
- Generated lines of invented names with numbers and units (scripts/backbone/shorthand.py).
- Exercises over both ("mark: disease, medicine", "mark like: kidney", "mark exactly: ..."), whose
  labels come from the topics' names, from word endings, numbers and brackets, and from word
  clusters made of the same text; {tokens_seen:,} tokens of exercises in {steps} steps with the
  usual loss and {decision_steps} with that of the decisions.

## What it did not see
- No annotated clinical text, and no text of the corpora or notes that the project's studies use.
- None of the annotation scheme's definitions or prompts; none of its type names as what is to be
  marked or as the class of a tag. (The words occur in the text, and so in quoted phrases: "mark
  exactly: urine test". The form of a request, "mark: X Y", is that of the compact prompts.)
- Of the {held_out_terms} terms held out for the demo's test notes, the generated lines have
  {held_out_generated} (in {generated_lines:,} lines drawn); the open text, being ordinary medical
  English, contains {held_out_open} of them, unannotated by us.

## Making
`python scripts/make_backbone.py PRETRAINING OUT`, seeds {seed} and {decision_seed}. On one core of
a two-core machine that was also used otherwise the first stage took 55 minutes, the second 20. Text
is lower-cased; white space is not encoded. Weights are bfloat16, under the project's licence; name
MedQuAD where you pass them on.
"""


def write_card(facts: dict[str, Any]) -> str:
    """The card's text from the facts of the making."""
    return _CARD.format(**facts)
