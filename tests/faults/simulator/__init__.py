"""The real controller in a world in virtual time, where everything else can fail; equal seeds give equal runs."""
