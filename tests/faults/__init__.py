"""Faults, injected by the thousand in virtual time and by the dozen into real processes (`make faults`)."""
