"""Asking for a retraining because of a report of the monitor."""
