"""A recipe in miniature, which the tests copy into a folder of their own and run there."""
