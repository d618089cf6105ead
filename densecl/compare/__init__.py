"""Two experiments side by side: read from folders, paired image by image, told apart or not, and
what differed between them.
"""
