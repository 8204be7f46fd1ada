"""Fetches the champion."""
