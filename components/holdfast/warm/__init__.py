"""Processes that have imported their libraries once, and whose forks are the steps."""
