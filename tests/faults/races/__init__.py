"""Races for bytes that no gate passed: a hostile writer against admission and loading."""
