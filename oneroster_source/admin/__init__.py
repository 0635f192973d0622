"""What people have removed: one person, those who left, and columns."""
