"""Traffic of our own, as a process: rows, how they are sent, what comes back.

`rows` are what is sent, over `wire` to an `address`; `traffic` are the clients and the process; `probes` ask both arms
the same, where `arms` says; `answers` reads and counts what comes back; `tally` is the counts as a file; `sender` is
all of it seen from the process that started it. A controller imports `arms`, `tally` and `sender`, which are light.
"""
