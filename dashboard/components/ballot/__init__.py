"""Images of which one is chosen, without a word about what they are."""
