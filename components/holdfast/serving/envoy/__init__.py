"""Envoy in front of two versions of a model: its configuration as plain values, its routes, and what its counters mean.

It knows nothing of rollouts, so that other parts can put an Envoy in front of their servers.
"""
