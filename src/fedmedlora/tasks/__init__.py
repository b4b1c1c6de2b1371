"""Documents to prompts and answers, and answers back to documents."""
