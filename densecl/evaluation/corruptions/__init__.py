"""The corruptions of ImageNet-C (Hendrycks and Dietterich 2019), computed from clean images."""
