"""The reference store's files: read always, written when configured.

`wal` and `snapshot`, `jsonfile` turn bytes into nouns and back, `columns` the trees of the latter two into
columns, `directory` knows names and chooses files.
"""
