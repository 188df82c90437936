"""Messages delivered at an arbitrary time, and taking them back (``TimerMessageStore``)."""
