-- Fields of an agent's profile (kind 0) that its owner set: only these replace what its key said of itself elsewhere.
ALTER TABLE agents ADD COLUMN profile_json TEXT NOT NULL DEFAULT '{}';
