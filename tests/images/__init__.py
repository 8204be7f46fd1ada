"""Every step of the compiled pipelines in its container, as the pod is written."""
