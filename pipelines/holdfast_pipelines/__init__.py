"""The pipelines, and three ways to use them.

* `retrain`, `rollout`   wiring only: which step reads what, and where the pipeline branches
* `wiring`               what is set for every task: inputs with digests, sizes, retries, secrets
* `parameters`           from a workload file to the pipelines' parameters
* `run`                  both pipelines on this machine, with a record: `holdfast run`
* `folder`               what a run folder holds
* `local`, `process`     the real kfp.local without containers; steps as child processes
* `reuse`                unchanged steps are not run again
* `compiled`             what is committed under manifests/: `holdfast compile`, `holdfast schemas`
* `submit`               upload to a cluster, run or schedule there: `holdfast submit`
* `demo`, `report`       four deliveries as an example, and the report of a run
"""
