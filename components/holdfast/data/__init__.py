"""The `data` environment: snapshot, schema, drift.

* quiet.py   keeps what TensorFlow, Beam and Google's libraries say on import out of a pod's log
"""
