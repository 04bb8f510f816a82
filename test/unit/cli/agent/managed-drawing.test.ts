import { expect, test } from 'vitest'
import { drawManaged } from '../../../../src/cli/agent/managed-drawing.ts'

const agent: Parameters<typeof drawManaged>[0] = {
  ...({ kind: 'managed', name: 'bot', provider: 'local', protocol: 'pi', phase: 'ready', cleanup: 'none' } as const),
  ...{ npub: null, reason: null, steps: [], server: 'npub1x', own_node: true, runtime_id: 'local-1', runtime_class: null },
  ...{ group_id: null, relays: [], keep: false, runtime: null, created_at: '2026-01-01T00:00:00Z' },
}
const now = Date.UTC(2026, 0, 2)

test('an agent is shown with its backups and the ticket to its screen, or why there are none', () => {
  const bare = drawManaged(agent, { metadata: { state: 'ready' } }, now)
  expect(bare).toMatch(/Backup +this substrate makes none/)
  expect(bare).toMatch(/Launch +no ticket: its machine has no screen to open/)
  const backup = { freshness: 'healthy', latest_successful_backup_at: '2026-01-01T23:00:00Z', latest_recovery_point_name: 'point-7' }
  const launch_ticket = { url: 'https://openclaw.example/launch?t=1', expires_at: '2026-01-02T00:01:00Z' }
  const full = drawManaged(agent, { metadata: { state: 'ready', backup, launch_ticket } }, now)
  expect(full).toMatch(/Backup +healthy, point-7 /)
  expect(full).toMatch(/Launch +https:\/\/openclaw\.example\/launch\?t=1 \(ticket until 2026-01-02T00:01:00Z\)/)
  expect(drawManaged(agent, { reason: 'no answer' }, now)).toMatch(/Now +its node does not say: no answer/)
})
