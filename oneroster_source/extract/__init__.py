"""Reads one school's collection completely, and decides what it means for the existing rows."""
