"""What moves traffic and counts it, behind one interface: Envoy on this machine, SeldonDeployment, Seldon Core 2."""
