"""What a driver, a store, a counter and an arm are: the words that every other room of a rollout uses."""
