"""A comparison of a crew with one plain connection.

Both run the same statements. Their answers and their databases must be equal.
"""
