"""Carries a rollout out: journal before act, resume after a crash."""
