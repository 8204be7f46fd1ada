"""The pipelines, and three ways to use them.

* `retrain`, `rollout`   wiring only: which step reads what, and where the pipeline branches
* `wiring`               what is said about every task: inputs with digests, sizes, retries, secrets
* `parameters`           from a workload file to the pipelines' parameters
* `run`                  both pipelines on this machine, with a record: `holdfast run`
* `local`, `process`     the real kfp.local without containers; steps as child processes
* `reuse`                unchanged steps are not run again
* `compiled`             what is committed under manifests/: `holdfast compile`, `holdfast schemas`
* `submit`               upload to a cluster, run or schedule there: `holdfast submit`
* `demo`, `report`       the story in four acts, and the report of a run
"""
