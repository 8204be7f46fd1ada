"""Shadow, canary, promotion or rollback.

`contract` has the words that all rooms use; `engine` decides and carries out; `local` and `cluster` are the places
(`stage`) where traffic moves; `traffic` sends requests and probes of our own; `reporting` is for people. `matchup` is
what a rollout compares, `step` the one sequence, `record` what is left of it, `command` is `holdfast rollout start`;
the commands of operators are in `holdfast.cli.rollout`.
"""
