"""What the embedded backbone saw and what it is for, as CARD.md beside its weights."""

from __future__ import annotations

from typing import Any

_CARD = """# The embedded backbone

A Llama of {parameters:,} parameters ({hidden} wide, {layers} layers, a vocabulary of {vocabulary},
tied embeddings) that ships with fedmedlora, so that anyone can run the whole of it on two CPU
cores. It copies a text and marks up parts of it; an adapter teaches it what to mark. It serves no
other purpose and must not be used clinically.

## What it saw
- MedQuAD (Ben Abacha and Demner-Fushman, BMC Bioinformatics 2019; CC BY 4.0): {documents:,} topics
  of NIH and CDC web sites, {words_of_open_text:,} words, cut into {segments:,} sentences; and the
  names, synonyms and UMLS semantic types of its topics. It is text about diseases for the public:
  no notes of any patient.
- Generated lines of invented names, and of names of the open text, with what notes say about names:
  doses, values, dates, degrees, doubts and the like (scripts/backbone/shorthand.py, remarks.py).
- Exercises over both ("mark: disease, medicine", "mark like: kidney", "mark exactly: ..."), whose
  labels come from the topics' names, from word endings, numbers and brackets, and from word
  clusters made of the same text. What notes say of names is asked for by everyday words and by
  the default scheme's names of modifiers, which mean there what they say: so the backbone marks
  modifiers from the start where notes are written like these lines, as the demo's are (its
  zero-shot rows), and fewer in real text.
  {tokens_seen:,} tokens of exercises in {steps} steps with the usual loss and {decision_steps} with
  that of the decisions.

## What it did not see
- No annotated clinical text, and no text of the corpora or notes that the project's studies use.
- None of the annotation scheme's definitions or long prompts. (The form of a request, "mark: X Y",
  is that of the compact prompts.)
- Not what the main types are called: where an exercise asks for "problem", "treatment", "test" or
  "drug", each names another kind of thing the next time. So without an adapter it finds names and
  calls them anything.
- Of the {held_out_terms} terms held out for the demo's test notes, the generated lines have
  {held_out_generated} (in {generated_lines:,} lines drawn). The open text, being ordinary medical
  English, contains {held_out_sentences} of them, with its lists of names {held_out_open}. No
  exercise says what kind of thing one is: the {unlabelled:,} sentences with one are only copied,
  or searched for a quoted phrase, and the lists are used without them. (The tokenizer, and the
  vectors that embeddings start from, were made of all of the open text.)

## Making
`python scripts/make_backbone.py PRETRAINING OUT`, seeds {seed} and {decision_seed}. On one core of
a two-core machine that was also used otherwise the first stage took {copying_minutes} minutes, the
second {decision_minutes}. Text is lower-cased; white space is not encoded. Weights are bfloat16,
under the project's licence; name MedQuAD where you pass them on.
"""


def write_card(facts: dict[str, Any]) -> str:
    """The card's text from the facts of the making."""
    return _CARD.format(**facts)
