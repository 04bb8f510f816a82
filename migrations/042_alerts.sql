-- What is wrong, from when it was first seen until it was over for its time: the owner is told of each once, and once that it is over.
CREATE TABLE alerts (
  key TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  words TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('held', 'on', 'fading', 'over')),
  -- When it was first seen, this time; and when it came into its state.
  since INTEGER NOT NULL,
  changed_at INTEGER NOT NULL,
  -- Whether the owner was told that it began.
  told INTEGER NOT NULL CHECK (told IN (0, 1))
) STRICT;
