"""What is written of a trained model for other frameworks; no stage of the pipeline runs it."""
