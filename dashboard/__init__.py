"""What the pages share: settings, cached resources, figures and images."""
