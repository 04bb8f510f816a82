/** What the node tells its owner of by itself (`alerts.mute` leaves some out). */
export const ALERT_KINDS = [
  'low_balance',
  'payout_failed',
  'relay_deaf',
  'mint_down',
  'wallet_down',
  'disk_low',
  'refund_stuck',
  'backup_failed',
  'substrate_down',
  'audit_broken',
] as const
export type AlertKind = (typeof ALERT_KINDS)[number]
