"""The guard in front of a model: who asks it in ways that its users do not."""
