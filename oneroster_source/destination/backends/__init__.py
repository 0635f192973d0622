"""What one database alone needs."""
