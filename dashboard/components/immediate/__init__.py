"""An image that the server samples again while the hand moves its settings."""
