"""What people see of a rollout: incident report, live table, history, metrics."""
