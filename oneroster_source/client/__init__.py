"""HTTP: logs in, asks a school's server for pages, and reads a collection whole."""
