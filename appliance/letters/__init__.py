"""The letters of the appliance to people, on their way out: as a message, or as a request to a provider.

What they say is written where the reason for them is (`appliance.access.letters`, `appliance.accounts.consent`); a
`Letter` of the model comes in here and leaves in a form that can travel. `composing.py` makes a message of it, for our
own queue (`appliance.reception.submission` puts it in); `postmark.py` hands it to Postmark. Which of them it is, the
configuration says (`appliance.run.post_office`).

Nothing here knows Trio: `postmark.py` blocks, and belongs in a worker thread. A letter may have a link in it that is a
secret; so neither its text nor its address ever stands in an error or in the log.
"""
