"""One prediction, or one activation, in words, checked against what happens without what the words name."""
