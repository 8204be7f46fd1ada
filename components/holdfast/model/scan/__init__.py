"""Poison and label errors: which training rows a person should look at before anything is trained on them."""
