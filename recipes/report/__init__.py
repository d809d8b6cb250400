"""Figures of an evaluation as JSON, table, HTML and plots."""
