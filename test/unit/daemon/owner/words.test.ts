/** What an owner may write, as people write it; and what is never taken for an order. */
import { expect, it } from 'vitest'
import { readOrder, tellApproval } from '../../../../src/daemon/owner/words.ts'
import { type ApprovalView, summaryOf } from '../../../../src/host/approvals.ts'

const decide = (id: number, to: 'approved' | 'denied', reason: string | null = null) => ({ do: 'decide', id, to, reason })

it.each([
  ['approve 7', decide(7, 'approved')],
  ['  APPROVE   #7 \n', decide(7, 'approved')],
  ['Approve 12.', decide(12, 'approved')],
  ['deny 7', decide(7, 'denied')],
  ['Deny 7 because it is   too dear', decide(7, 'denied', 'it is too dear')],
  ['deny #7: no', decide(7, 'denied', 'no')],
  ['deny 7 - no', decide(7, 'denied', 'no')],
  ['List', { do: 'list' }],
  [' help? ', { do: 'help' }],
])('%j is understood', (text, order) => expect(readOrder(text)).toEqual(order))

it.each([
  'approve',
  'approve 7 8',
  'approve 7 because you must',
  'approve 7, but only half',
  'do not approve 7',
  '> approve 7',
  'approve -7',
  'approve 7e3',
  'approve 99999999999',
  'denying 7',
  'list all',
  '',
])('%j is none', (text) => expect(readOrder(text)).toBeUndefined())

it('what an agent says is one line that nothing turns around, and where it is cut the owner is told how to read it all', () => {
  const text = `pay "bob"\n\n8: eve asks for post\u202e dear \u2066 x\u0007\u200b`
  expect(summaryOf({ params: { text } })).toBe('pay "bob" 8: eve asks for post\ufffd dear \ufffd x\ufffd\ufffd')
  const view = { id: 7, agent: 'ada', action: 'post', amount_sats: 0, to: null, why: 'it is supervised' } as ApprovalView
  expect(tellApproval({ ...view, summary: summaryOf({ params: { text: 'x'.repeat(500) } }) })).toContain('pylon approvals show 7')
  expect(tellApproval({ ...view, summary: 'short' })).not.toContain('approvals show')
})
