"""Model files from elsewhere: what they are by their bytes, and whether Holdfast may read them.

`judge` decides; each other module knows one kind. Nothing here ever runs what a file asks for: structure is checked by
hand, and the only unpickler is torch's with `weights_only=True`.
"""
