"""Settings: declared once, looked up by dlt's rules, checked, and frozen."""
