"""Live rooms: who is in them, what is sent to whom, and the run under way."""
