"""Puts a model that passed into MLflow."""
