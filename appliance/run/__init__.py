"""The appliance as processes: one that supervises, one engine, one control.

`supervisor.py` is what `onward run` calls. It opens what listens (`listeners.py`), holds the data directory
(`lock.py`), forks the two others (`child.py`), and is small enough to outlive their faults: no trio, no store, no key.
`engine.py` is the composition root of mail, `control.py` that of what faces browsers; each is imported by its own
process only. `assembly.py` puts the rooms of mail together for the one, `furnishing.py` those that the API calls for
the other, over stores that `stores.py` opens; `control_verbs.py` is what the engine answers to others. What more than
one of them needs: `hosts.py` (the way out), `explanation.py` (where a message would go), `dns_questions.py`,
`account_rooms.py` (deletion and export). `process.py` has what a process arranges for itself, `notify.py` talks to
systemd, `log.py` says how a line of the log looks, `doubts.py` what deserves one at the start, `measurements.py` and
`watching.py` what the two children tell of their own work, `certificates.py` what is shown to who encrypts
(`own_certificate.py`: where none is configured), `post_office.py` who carries the letters of the appliance's own. For
nodes that share a store: `node_name.py` (which of them this is), `server_clock.py` (the time that they agree on),
`cluster_keys.py` (their keys), `shared_certificate.py` (what they show) and `chores.py` (what
one of them does for all, as part of what `sweeping.py` does); `lost_keys.py` says what to do without a key.

The two children share nothing but the data directory and the socket in it on which the engine answers (`engine.sock`).
"""


class CannotStart(Exception):
    """Why the appliance does not start: one line for people, with what to do about it."""
