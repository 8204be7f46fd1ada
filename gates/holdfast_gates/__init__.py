"""The policy gate: `checks` and `decide` are pure, `policy` is what people edit, `step` runs it."""
