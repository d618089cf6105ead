"""Two experiments side by side: read from folders, paired image by image, tested, and
what differed between them.
"""
