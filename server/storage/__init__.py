"""What outlives the process: SQLite, pictures named by content, archives."""
