"""What detectors of single adversarial inputs find, and what is left of that when the attacker knows them."""
