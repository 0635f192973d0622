"""Removal from a dataset that is loaded: people, leavers, schools, and columns; and what is held on
a person.
"""
