"""The destination: which it is, who may use it, what it holds, and what must hold after a load."""
