"""Watches a served model: its inputs, its confidence, and its labels when they come."""
