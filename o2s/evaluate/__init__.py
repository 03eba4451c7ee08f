"""Scores that name their variant, their data, their uncertainty and what made them."""
