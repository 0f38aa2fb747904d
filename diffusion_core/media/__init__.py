"""Images and animations as people see them."""
