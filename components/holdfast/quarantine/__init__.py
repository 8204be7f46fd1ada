"""The review of rows that a scan set aside: look at them, release or drop them, and remember by whom and why."""
