"""Explanations of units in words: by whom they are made, how they are tried, and what they score."""
