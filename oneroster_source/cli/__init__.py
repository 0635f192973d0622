"""The command `oneroster`: words and options come in; tables, logs and exit codes go out."""
