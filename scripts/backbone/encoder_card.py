"""What the embedded encoder saw and what it is for, as CARD.md beside its weights."""

from __future__ import annotations

from typing import Any

_CARD = """# The embedded encoder

A EuroBERT of {parameters:,} parameters ({hidden} wide, {layers} layers; {embedding_parameters:,} of
them embeddings of a vocabulary of {vocabulary}) that ships with fedmedlora, so that the BERT-class
baseline, a token classifier, runs on two CPU cores. It serves no other purpose and must not be used
clinically. Its tokenizer is the embedded backbone's and lies beside that.

## What it saw
- It is the [embedded backbone](../embedded/CARD.md) taught to look both ways: it started from all
  of the backbone's weights (a EuroBERT has the layers of a Llama without the causal mask). So it
  knows what the backbone knows, from the exercises with names and remarks as well; everything that
  card says of them, of held-out terms and of names of modifiers holds here.
- Then it guessed masked words ({masked:.0%} of them, whole) in the same text: MedQuAD (Ben Abacha
  and Demner-Fushman, BMC Bioinformatics 2019; CC BY 4.0), {documents:,} topics of NIH and CDC web
  sites, {words_of_open_text:,} words, here {sentences:,} sentences; and, in {generated:.0%} of the
  rows, generated lines of shorthand (scripts/backbone/shorthand.py). {tokens_seen:,} tokens in
  {steps} steps. Its mask is the tokenizer's `<unk>`.

On the last {kept_back_sentences:,} sentences, which masking kept back (the backbone saw them), its
loss is {loss:.2f} a masked token (natural logarithm, tokens of whole masked words) and {right:.0%}
of its first guesses are right.

## What it did not see
- No annotated clinical text, no notes of any patient, and no text of the corpora or notes that the
  project's studies use.
- Nothing of the annotation scheme but what the backbone's card says: which label means what, its
  classifier learns from a study's training notes alone.

## Making
`python scripts/make_encoder.py PRETRAINING OUT`, seed {seed}; {minutes} minutes on one core of a
two-core machine that was also used otherwise. Text is lower-cased; white space is not encoded.
Weights are bfloat16, under the project's licence; name MedQuAD where you pass them on.
"""


def write_card(facts: dict[str, Any]) -> str:
    """The card's text from the facts of the making."""
    return _CARD.format(**facts)
