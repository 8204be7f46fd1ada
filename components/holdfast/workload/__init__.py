"""The user's YAML files: what their sections mean, how they are read, and the one to start from."""
