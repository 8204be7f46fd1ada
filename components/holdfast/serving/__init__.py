"""Serving: `predictor` answers for one registered model, `rollout` moves live traffic to a new one and back."""
