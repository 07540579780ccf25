"""Who may come in: sign-up, passwords, second factors, sessions, API tokens, and the links that are mailed.

Everybody who is let in is let in here. `entrance.py` puts the room together; what callers use of it are `sign_ups.py`
(an account that verifies its address, a password that is forgotten), `sign_ins.py` (passwords and codes in, a session
out), `two_factor.py`, `api_tokens.py`, `sessions.py`, and `doorkeeper.py`, which tells who is behind a cookie or a
token. Beneath them: `passwords.py` with `turns.py` (two hashes at a time), `attempts.py` (how often, and why nobody
locks anybody out; `clients.py`: as whom a client counts), `devices.py`, `mailed_tokens.py`, `letters.py`, and
`postbox.py` with `errands.py` (what is done once the answer is given).

A session here is a person's, begun by signing in; the sessions of SMTP are no affair of this room.

What all of it keeps to: the answer, and the time that it takes, are the same for an address that has an account and
one that has none. Of every secret only a hash is stored, but for that of one-time codes, which is sealed. Whatever
counts once is taken out of the store by the very act of using it, so that two at the same instant do not both have it.

What does not live here: what an account owns (`appliance.accounts`), how a letter travels (a `Post` is handed in), and
cookies and headers (`control_api`). A rule that is broken raises `Refused`, too many tries raise `TooMany`. Nothing
here knows Trio; every method may block for the disk or for a hash, and belongs in a worker thread.
"""
