"""Equal tuning: the trials of a sweep, each a short training judged on held-back images."""
