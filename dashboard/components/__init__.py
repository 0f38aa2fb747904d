"""Browser components: Python, JavaScript and CSS side by side."""
