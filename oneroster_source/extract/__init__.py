"""One school's collection: read, compared with what is known, and decided."""
