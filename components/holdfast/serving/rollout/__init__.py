"""Shadow, canary, promotion or rollback.

Pure: `counters`, `eprocess`, `analysis`, `machine`, `envoy_config`. With effects: `processes`, `envoy` (a `driver`),
`replay` (over `wire`, counted in `tally`), `journal`, `conduct` (brings them together), `incident`, `step`.
"""
