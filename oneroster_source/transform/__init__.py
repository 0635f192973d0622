"""Parses page bodies into Arrow tables, and removes what is not to be kept of people."""
