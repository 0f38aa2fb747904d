"""An image noised in the browser."""
