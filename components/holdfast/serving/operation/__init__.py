"""Guarded operation: after its promotion a model is held against what was approved, and taken back by proof.

Drift is no proof: in measurements an alarm of the inputs alone would have taken back 83 % of good candidates.
"""
