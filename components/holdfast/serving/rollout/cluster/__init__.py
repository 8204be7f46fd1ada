"""Rollouts on Kubernetes: Seldon Core 1 and 2, and KServe, behind one interface."""
