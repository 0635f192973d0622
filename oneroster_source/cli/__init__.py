"""The command `oneroster`."""
