/** What doctor says of brains that are programs of others. */
import { findBubblewrap } from '../../runtime/local/bubblewrap.ts'
import { listAgents } from '../../store/agents/agents.ts'
import type { Store } from '../../store/store.ts'
import { type Check, ok, warning } from './check.ts'

const NAMED_AGENTS = 5

/** Nothing where no brain speaks ACP. @param find tried only where one does */
export async function checkBrains(store: Store, find: typeof findBubblewrap = findBubblewrap): Promise<Check[]> {
  const agents = listAgents(store).filter(({ brain }) => (brain as { readonly type?: unknown }).type === 'acp')
  if (agents.length === 0) return []
  const more = agents.length > NAMED_AGENTS ? ` and ${agents.length - NAMED_AGENTS} more` : ''
  const names = `${agents
    .slice(0, NAMED_AGENTS)
    .map(({ name }) => name)
    .join(', ')}${more}`
  const found = await find(undefined)
  if (found.path !== null) return [ok('brains', `The home is hidden from the commands that think for ${names}.`)]
  return [
    warning(
      'brains',
      `The commands that think for ${names} run without a fence (${found.reason}): each can reach the control socket as you, and so every sat.`,
      'Install bubblewrap and let it work (apt install bubblewrap), then: pylon restart; docs/security.md says what it holds.',
    ),
  ]
}
