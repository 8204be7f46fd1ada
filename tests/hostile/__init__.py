"""Files that a stranger could send, made here, and what becomes of each in the hands of the command that reads it."""
