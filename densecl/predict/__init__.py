"""Use a trained model on images: `densecl predict` and `densecl embed`."""
