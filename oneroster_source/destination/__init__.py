"""A dataset in its destination: who may use it, what it has, what must hold after a load."""
