"""Features for machine learning: of an archive in `feature_map`, of a folder in `feature_table`.
`femto.features` and `femto.sklearn` are the doors.
"""
