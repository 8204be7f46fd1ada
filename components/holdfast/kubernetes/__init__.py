"""Kubernetes: the access to an API server, and its objects. Nothing here knows of rollouts.

* `access`       an API server's address, and what lets us in: a pod's service account, or
* `kubeconfig`   what a kubeconfig describes
* `exec_plugin`  credentials from the command that a kubeconfig names
* `api`          one call, and the change of one object by compare-and-set
* `needs`        what Holdfast needs of a cluster, and what is missing there
* `objects`      parts of objects: annotations, patches, times
"""
