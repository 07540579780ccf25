"""The nouns of the API, a file each: types, and the queries, mutations and subscriptions about them.

No rule lives here. A resolver reads its arguments, calls a room, and shows what that says.
"""
