"""What people ask of a dataset that is loaded. Nothing here changes a row of a roster."""
