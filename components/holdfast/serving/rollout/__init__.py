"""Shadow, canary, promotion or rollback.

Pure: `counters`, `eprocess`, `analysis`, `machine`, `envoy_config`. With effects: `processes`, `envoy` (a `driver`),
`replay`, `journal`, `conduct` (brings them together), `incident`, `step`.
"""
