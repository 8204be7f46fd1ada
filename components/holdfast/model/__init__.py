"""The `model` environment: scan, train, backdoor, attack, certify, register, and what they share.

* compute.py   seed, device and threads of a step
* inputs.py    from a snapshot's rows to the arrays that a network takes
* networks.py  built-in and user networks: build, load, run, check
* threat.py    the set of inputs that an attacker can reach
"""
