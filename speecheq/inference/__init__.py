"""The predictor, recordings, model folders, export, the demo page and the starter model."""
