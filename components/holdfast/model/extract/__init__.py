"""The extract step: how well a model can be copied by its answers, and how many of them that takes."""
