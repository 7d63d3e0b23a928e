"""Runs that outlive their process: a database of their events and values, and those who carry them out."""
