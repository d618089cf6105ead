"""Compare two experiments: read both, pair them image by image, test differences, and list what
changed between them.
"""
