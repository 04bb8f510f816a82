-- Who said something to an agent, and what waits of it: both are asked for each event, however many there are.
CREATE INDEX heard_sender ON heard (agent_pubkey, sender, scheme);
CREATE INDEX heard_waiting_of ON heard (agent_pubkey, type, sender) WHERE tick_id IS NULL;
