"""Deliveries that come: the newest complete one of a folder or an object store, and the answer to a database query."""
