"""Scores: gold and predicted documents in; counts, ratios, intervals and tables out.

- ``counts``: counts add, ratios derive
- ``matching``: exact agreement, and maximum matching by overlap
- ``tally``: what is scored; counts a document and type
- ``intervals``: bootstrap over documents, paired differences
- ``records``: the rows of scores.json
- ``tables``: records as text
- ``errors_by_kind``: one document's errors, each of one kind
- ``dictionary``: the baseline of training mentions
- ``open_bias``: which bias towards tags does best on validation notes
- ``score_files``: two JSONL files against each other
"""
