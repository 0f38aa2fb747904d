"""What a run predicts from an image with noise, computed in the browser."""
