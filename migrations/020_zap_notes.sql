-- What is worth knowing of a zap that was paid all the same: its invoice commits to something else, its server takes no zaps.
ALTER TABLE zap_sends ADD COLUMN note TEXT;
