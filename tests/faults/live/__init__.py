"""Real processes under faults: Envoy, MLServer, the local deployment and drivers, with clients all the time."""
