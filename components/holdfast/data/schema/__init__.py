"""The schema step: TensorFlow Data Validation holds a delivery against its contract."""
