"""Privacy that is accounted for: noise and budgets as arithmetic, and the ledger at a site."""
