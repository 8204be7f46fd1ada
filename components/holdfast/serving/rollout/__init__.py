"""Shadow, canary, promotion or rollback.

`judge` decides and is pure; `drivers` move traffic (Envoy here, Seldon on a cluster); `conduct` carries a rollout out
and resumes it; `site` is what runs on this machine and outlives its driver; `tell` is for people; `replay` sends our
own traffic, and probes that compare answers. `step` and `cluster` bring the parts together; `remote` sees and ends a
rollout on a cluster from elsewhere; `commands` is `holdfast rollout`.
"""
