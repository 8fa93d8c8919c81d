"""Other tools' dictionaries, one file a format."""
