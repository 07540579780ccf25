"""Mail of our own about mail of others: bounces, and reports in place of what came back to a rewritten sender.

Whatever leaves this room is read by strangers, so it names the alias and never the mailbox behind it, and takes over
no octet of a next hop's words that could give the mailbox away. `composing.py` builds multipart/report,
`explanations.py` has the words for each status code, `bounce.py` says what failed here and who may be told at all,
`delayed.py` what takes longer, `relayed.py` what was handed over where the sender wanted to know, `returned.py` reads
and answers what came back, `own_mail.py` puts the result in the queue.
"""
