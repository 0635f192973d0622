"""Answers about a dataset that is loaded: views, checks, status and the report. Nothing here
changes a row of a roster.
"""
