"""What units do over a corpus: recorded in one pass, kept in a folder, read back."""
