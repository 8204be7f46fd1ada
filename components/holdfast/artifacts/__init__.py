"""Artifacts: what flows between the steps (documents.py says what, folder.py how it lies on disk)."""
