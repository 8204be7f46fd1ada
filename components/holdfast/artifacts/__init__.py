"""Artifacts: what flows between the steps (documents.py has what, folder.py how it is kept on disk)."""
