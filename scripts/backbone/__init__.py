"""Making of the embedded backbone: open text in, a model folder out (see make_backbone.py)."""
