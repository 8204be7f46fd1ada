"""The drift step: whether a delivery comes from another distribution."""
