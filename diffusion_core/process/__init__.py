"""The mathematics: schedules, the forward process, targets and losses, time embeddings."""
