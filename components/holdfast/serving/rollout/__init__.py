"""Shadow, canary, promotion or rollback.

`judge` decides and is pure; `drivers` move traffic (Envoy here, Seldon or KServe on a cluster); `conduct` carries a
rollout out and resumes it; `site` is what runs on this machine and outlives its driver; `tell` is for people; `replay`
sends our own traffic, and probes that compare answers. `step` is the one sequence, `local` and `cluster` are the places
(`stage`) where it is carried out; `remote` sees and ends a rollout on a cluster from elsewhere; `commands` is
`holdfast rollout`.
"""
