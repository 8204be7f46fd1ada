"""What runs on this machine: two model servers, a router, and the watchdog that takes the candidate out alone."""
