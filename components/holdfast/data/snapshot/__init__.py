"""The snapshot step: the exact data of one delivery, read safely, split, and pinned."""
