"""What a rollout leaves for people and programs: status, log, metrics, timeline, incident report."""
