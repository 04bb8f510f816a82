/** States that stand in the database and on the wire alike; which step leads where is decided by who takes it. */

/** Of a job that others ordered here. */
export const JOB_STATES = [
  'received',
  'refused',
  'queued',
  'quoted',
  'expired',
  'paid',
  'running',
  'ready',
  'delivered',
  'settled',
  'failed',
  'refunding',
  'refunded',
  'cancelled',
] as const
export type JobState = (typeof JOB_STATES)[number]

/** Of a job that was bought from others. */
export const PURCHASE_STATES = [
  'preparing',
  'requested',
  'offered',
  'paying',
  'paid',
  'processing',
  'completed',
  'failed',
  'timeout',
  'cancelled',
  'refunded',
] as const
export type PurchaseStatus = (typeof PURCHASE_STATES)[number]
