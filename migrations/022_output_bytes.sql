-- What was collected from a runtime takes room of the node: counted for each, so that the sum is quickly had.
ALTER TABLE runtimes ADD COLUMN output_bytes INTEGER NOT NULL DEFAULT 0;
UPDATE runtimes SET output_bytes = (SELECT coalesce(sum(length(data)), 0) FROM runtime_outputs o WHERE o.runtime_id = runtimes.id);
CREATE INDEX runtimes_outputs ON runtimes (updated_at) WHERE output_bytes > 0;
