"""Traffic of our own, as a process: rows, how they are sent, what comes back.

`rows` are what is sent, over `wire`; `clients` are the clients and the process; `probes` ask both arms the same;
`answers` reads and counts what comes back; `tally` is the counts as a file; `sender` is all of it seen from the process
that started it. A controller imports `tally` and `sender`, which are light.
"""
