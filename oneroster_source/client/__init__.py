"""HTTP: logs in, sends requests to a school's server, and reads collections page by page."""
