-- Sessions: encrypted conversations (MLS groups over Nostr) of the keys of this home. The states and private parts in here open
-- them; they lie in the database as coins do.

CREATE TABLE session_key_packages (
  owner TEXT NOT NULL CHECK (length(owner) = 64),
  ref TEXT NOT NULL CHECK (length(ref) = 64),
  -- Of the 30443, and of the 443 beside it.
  event_id TEXT NOT NULL,
  legacy_event_id TEXT NOT NULL,
  -- The d tag.
  slot TEXT NOT NULL,
  public BLOB NOT NULL,
  -- The row goes when nobody is to be welcomed by it any more.
  private BLOB NOT NULL,
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),
  -- Unix seconds.
  not_after INTEGER NOT NULL,
  uses INTEGER NOT NULL DEFAULT 0 CHECK (uses >= 0),
  created_at INTEGER NOT NULL,
  -- Since a newer one stands in its place.
  replaced_at INTEGER,
  PRIMARY KEY (owner, ref)
) STRICT;

CREATE TABLE session_groups (
  owner TEXT NOT NULL CHECK (length(owner) = 64),
  -- The h tag.
  id TEXT NOT NULL CHECK (length(id) = 64),
  mls_id TEXT NOT NULL,
  -- Of who asked for it here; null: we were brought into it.
  order_key TEXT,
  name TEXT NOT NULL,
  members_json TEXT NOT NULL CHECK (json_valid(members_json)),
  admins_json TEXT NOT NULL CHECK (json_valid(admins_json)),
  relays_json TEXT NOT NULL CHECK (json_valid(relays_json)),
  epoch INTEGER NOT NULL CHECK (epoch >= 0),
  -- The epoch in which we came.
  joined_epoch INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('active', 'left', 'removed', 'broken')),
  mls_state BLOB NOT NULL,
  welcomes_json TEXT NOT NULL CHECK (json_valid(welcomes_json)),
  -- Number of what we say next.
  next_said INTEGER NOT NULL DEFAULT 1,
  -- Our own keys in it are to be renewed.
  update_due INTEGER NOT NULL DEFAULT 0 CHECK (update_due IN (0, 1)),
  -- A commit of ours that no relay has taken yet, and the state that it leads to.
  pending_json TEXT CHECK (json_valid(pending_json)),
  pending_state BLOB,
  -- Our newest commit, while no other member was heard in its epoch.
  unheard_json TEXT CHECK (json_valid(unheard_json)),
  created_at INTEGER NOT NULL,
  PRIMARY KEY (owner, id)
) STRICT;
CREATE UNIQUE INDEX session_groups_order ON session_groups (owner, order_key) WHERE order_key IS NOT NULL;

-- The epoch that stands and the last ones before it.
CREATE TABLE session_epochs (
  owner TEXT NOT NULL,
  group_id TEXT NOT NULL,
  epoch INTEGER NOT NULL,
  event_key BLOB NOT NULL,
  legacy_secret BLOB NOT NULL,
  -- As it was when it was left, and by which commit: a better one takes the group back to here.
  left_state BLOB,
  left_by TEXT,
  left_at INTEGER,
  PRIMARY KEY (owner, group_id, epoch),
  FOREIGN KEY (owner, group_id) REFERENCES session_groups (owner, id) ON DELETE CASCADE
) STRICT;

CREATE TABLE session_messages (
  seq INTEGER PRIMARY KEY AUTOINCREMENT,
  owner TEXT NOT NULL,
  group_id TEXT NOT NULL,
  -- Of the rumor.
  id TEXT NOT NULL CHECK (length(id) = 64),
  sender TEXT NOT NULL,
  is_own INTEGER NOT NULL CHECK (is_own IN (0, 1)),
  kind INTEGER NOT NULL,
  content TEXT NOT NULL,
  tags_json TEXT NOT NULL CHECK (json_valid(tags_json)),
  -- Unix seconds, as the sender says.
  created_at INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('new', 'handled', 'sending', 'sent', 'refused')),
  reason TEXT,
  -- Of what we say: once for each key.
  key TEXT,
  -- The epoch that carried it last.
  epoch INTEGER NOT NULL,
  at INTEGER NOT NULL,
  UNIQUE (owner, group_id, id),
  FOREIGN KEY (owner, group_id) REFERENCES session_groups (owner, id) ON DELETE CASCADE
) STRICT;
CREATE UNIQUE INDEX session_messages_key ON session_messages (owner, key) WHERE key IS NOT NULL;
CREATE INDEX session_messages_page ON session_messages (owner, group_id, seq);
CREATE INDEX session_messages_new ON session_messages (owner, group_id, seq) WHERE state = 'new';
CREATE INDEX session_messages_at ON session_messages (at);

-- How far each sender of a group was handed out.
CREATE TABLE session_senders (
  owner TEXT NOT NULL,
  group_id TEXT NOT NULL,
  sender TEXT NOT NULL,
  -- Number of what comes next, of who numbers what it says.
  next_said INTEGER,
  epoch INTEGER NOT NULL,
  next_generation INTEGER NOT NULL,
  PRIMARY KEY (owner, group_id, sender),
  FOREIGN KEY (owner, group_id) REFERENCES session_groups (owner, id) ON DELETE CASCADE
) STRICT;

-- Messages that wait for an earlier one of their sender.
CREATE TABLE session_held (
  owner TEXT NOT NULL,
  group_id TEXT NOT NULL,
  id TEXT NOT NULL,
  sender TEXT NOT NULL,
  said INTEGER,
  epoch INTEGER NOT NULL,
  generation INTEGER NOT NULL,
  rumor_json TEXT NOT NULL CHECK (json_valid(rumor_json)),
  at INTEGER NOT NULL,
  PRIMARY KEY (owner, group_id, id),
  FOREIGN KEY (owner, group_id) REFERENCES session_groups (owner, id) ON DELETE CASCADE
) STRICT;

-- Events that nothing opens yet: of a later epoch, or a stranger's.
CREATE TABLE session_unread (
  owner TEXT NOT NULL,
  group_id TEXT NOT NULL,
  event_id TEXT NOT NULL,
  event_json TEXT NOT NULL CHECK (json_valid(event_json)),
  at INTEGER NOT NULL,
  PRIMARY KEY (owner, group_id, event_id),
  FOREIGN KEY (owner, group_id) REFERENCES session_groups (owner, id) ON DELETE CASCADE
) STRICT;
