"""Serves one model that passed its gate: `core` (without a server), `runtime` (MLServer), `settings` (its files)."""
