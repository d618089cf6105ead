"""Probes: what a trained model can do beside classifying the images of datasets, one file each."""
