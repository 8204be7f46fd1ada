"""Incidents: what is known about a served model that went wrong, as one timeline that cannot be changed unseen."""
