-- What was earned, spent and finished, summed as it is posted: reading it costs the same after years. Times are milliseconds
-- since the epoch, periods an hour or a day of UTC.
CREATE TABLE ledger_sums (
  period_ms INTEGER NOT NULL CHECK (period_ms IN (3600000, 86400000)),
  start_at INTEGER NOT NULL,
  class TEXT NOT NULL CHECK (class IN ('income', 'expense')),
  detail TEXT NOT NULL,
  -- Of the job that caused it; 0 where that was none.
  kind INTEGER NOT NULL,
  amount_msats INTEGER NOT NULL,
  -- Jobs that others paid for the first time.
  jobs INTEGER NOT NULL DEFAULT 0,
  PRIMARY KEY (period_ms, start_at, class, detail, kind)
) STRICT, WITHOUT ROWID;

CREATE TEMP TABLE parts AS
SELECT e.created_at AS at, p.class AS class, p.detail AS detail, coalesce(j.kind, 0) AS kind, p.amount_msats AS amount_msats,
  j.id IS NOT NULL AND p.class = 'income' AND p.detail <> 'internal'
    AND row_number() OVER (PARTITION BY e.cause_type, e.cause_id, p.class, p.detail = 'internal' ORDER BY e.created_at, e.rowid, p.account) = 1 AS is_first
FROM postings p JOIN ledger_entries e ON e.id = p.entry_id LEFT JOIN jobs j ON e.cause_type = 'job' AND j.id = e.cause_id
WHERE p.class IN ('income', 'expense');

INSERT INTO ledger_sums (period_ms, start_at, class, detail, kind, amount_msats, jobs)
SELECT period_ms, at - at % period_ms, class, detail, kind, sum(amount_msats), sum(is_first)
FROM parts, (SELECT 3600000 AS period_ms UNION ALL SELECT 86400000) GROUP BY 1, 2, 3, 4, 5;
DROP TABLE parts;

-- Jobs by the states in which they may stay for ever; the others are counted where they stand, by their index.
CREATE TABLE job_counts (
  status TEXT PRIMARY KEY,
  jobs INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO job_counts SELECT status, count(*) FROM jobs
WHERE status IN ('refused', 'expired', 'delivered', 'settled', 'failed', 'refunded', 'cancelled') GROUP BY status;

CREATE TABLE job_sums (
  period_ms INTEGER NOT NULL CHECK (period_ms IN (3600000, 86400000)),
  start_at INTEGER NOT NULL,
  completed INTEGER NOT NULL,
  PRIMARY KEY (period_ms, start_at)
) STRICT, WITHOUT ROWID;
INSERT INTO job_sums
SELECT period_ms, at - at % period_ms, count(*) FROM (SELECT coalesce(completed_at, updated_at) AS at FROM jobs WHERE status IN ('delivered', 'settled')),
  (SELECT 3600000 AS period_ms UNION ALL SELECT 86400000) GROUP BY 1, 2;

CREATE TRIGGER jobs_come_to_rest AFTER UPDATE OF status ON jobs
WHEN new.status <> old.status AND new.status IN ('refused', 'expired', 'delivered', 'settled', 'failed', 'refunded', 'cancelled') BEGIN
  INSERT INTO job_counts VALUES (new.status, 1) ON CONFLICT (status) DO UPDATE SET jobs = jobs + 1;
END;
CREATE TRIGGER jobs_go_on AFTER UPDATE OF status ON jobs
WHEN new.status <> old.status AND old.status IN ('refused', 'expired', 'delivered', 'settled', 'failed', 'refunded', 'cancelled') BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE status = old.status;
END;
CREATE TRIGGER jobs_forgotten AFTER DELETE ON jobs
WHEN old.status IN ('refused', 'expired', 'delivered', 'settled', 'failed', 'refunded', 'cancelled') BEGIN
  UPDATE job_counts SET jobs = jobs - 1 WHERE status = old.status;
END;
CREATE TRIGGER jobs_completed AFTER UPDATE OF status ON jobs
WHEN new.status = 'delivered' AND old.status <> 'delivered' BEGIN
  INSERT INTO job_sums VALUES (3600000, coalesce(new.completed_at, new.updated_at) / 3600000 * 3600000, 1),
    (86400000, coalesce(new.completed_at, new.updated_at) / 86400000 * 86400000, 1)
  ON CONFLICT (period_ms, start_at) DO UPDATE SET completed = completed + 1;
END;
