"""Looking for a planted trigger in a trained model."""
