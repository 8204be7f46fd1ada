"""Game days: exercises against a local deployment with the real steps, scored by detection and time to safe."""
