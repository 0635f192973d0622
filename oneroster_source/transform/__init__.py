"""Page bodies to Arrow tables, without what is not to be kept of people."""
