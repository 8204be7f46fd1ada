"""The policy gate: `checks`, `rules` and `decide` are pure, `policy` is what people edit, `step` runs it."""
