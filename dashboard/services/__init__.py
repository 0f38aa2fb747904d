"""What all sessions share: settings, caches, the sampling queue. No layout."""
