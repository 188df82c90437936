"""POP consumption: the broker hands out messages, keeps them invisible, and gives them again.

A pop reads a queue from the group's offset, writes a check point (which messages, whose, until
when) and moves the offset on. An acknowledgement is a record too. Both wait in the timer and come
to the revive topic when the invisible time is over; there revive puts them together and copies what
was not acknowledged into the group's retry topic for that topic. So everything that must survive
is in the log, in the form that a Java broker writes and reads.

Ordered pops write no check point: a queue has one batch at a time, kept in consumerOrderInfo.json.

``room`` answers the requests. ``popping``, ``acking`` and ``waiting`` are the same things as
functions of values, for whoever pops inside the process.
"""
