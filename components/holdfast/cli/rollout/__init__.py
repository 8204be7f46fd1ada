"""The commands of operators about a rollout: look at one, step in, replay traffic; and what they print."""
