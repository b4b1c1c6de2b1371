"""Whether an adapter may leave, by a policy; and what leaves: adapter, model card and evidence."""
