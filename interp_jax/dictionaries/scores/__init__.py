"""What a dictionary is worth: in its model, beside others, against what is known."""
