"""Certified robustness: what no attacker inside the radius can change."""
