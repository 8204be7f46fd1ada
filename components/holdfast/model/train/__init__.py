"""Adversarial training with checkpoints."""
