/** How the command line lays out what it prints. */
import { describe, expect, test } from 'vitest'
import { bar, drawDays, fillDays } from '../../../../src/cli/market/chart.ts'
import { drawFields, drawTable, relativeTime, shorten, shortId } from '../../../../src/cli/terminal/table.ts'
import { accountWords } from '../../../../src/cli/wallet/history.ts'

describe('drawTable', () => {
  test('aligns text to the left and numbers to the right', () => {
    const text = drawTable(
      [{ title: 'NAME' }, { title: 'SATS', align: 'right' }],
      [
        ['ada', '5'],
        ['grace', '1,200'],
      ],
    )
    expect(text.split('\n')).toEqual(['NAME    SATS', 'ada        5', 'grace  1,200'])
  })

  test('keeps a stranger from drawing on the terminal', () => {
    const text = drawTable([{ title: 'TEXT' }, { title: 'N' }], [['a\u001b[2Jb\nc', '1']])
    expect(text.split('\n')).toHaveLength(2)
    expect(text).not.toContain('\u001b')
  })
})

test('drawFields puts values under each other, later lines too', () => {
  expect(
    drawFields([
      ['id', 'x'],
      ['result', 'one\ntwo'],
    ]),
  ).toBe('id      x\nresult  one\n        two')
})

test('shorten counts characters, not bytes', () => {
  expect(shorten('😀😀😀', 3)).toBe('😀😀😀')
  expect(shorten('😀😀😀😀', 3)).toBe('😀😀…')
})

test('shortId keeps the recognisable beginning', () => {
  expect(shortId('a'.repeat(64))).toBe('a'.repeat(12))
  expect(shortId(`npub1${'q'.repeat(58)}`)).toBe('npub1qqqqqqqq…')
})

test('relativeTime speaks of past and future', () => {
  const now = Date.parse('2026-01-02T00:00:00Z')
  expect(relativeTime('2026-01-01T23:59:30Z', now)).toBe('30 s ago')
  expect(relativeTime('2026-01-02T00:10:00Z', now)).toBe('in 10 min')
  expect(relativeTime('2025-12-01T00:00:00Z', now)).toBe('32 days ago')
  expect(relativeTime(null, now)).toBe('never')
})

describe('chart', () => {
  test('fills the days between, from the first one with earnings', () => {
    const days = fillDays([{ day: '2026-02-27', msats: 5n }], '2026-03-01', 14)
    expect(days.map(({ day }) => day)).toEqual(['2026-02-27', '2026-02-28', '2026-03-01'])
    expect(fillDays([{ day: '2020-01-01', msats: 5n }], '2026-03-01', 14)).toHaveLength(14)
    expect(fillDays([], '2026-03-01', 14)).toEqual([{ day: '2026-03-01', msats: 0n }])
  })

  test('the best day is a full bar, the least earning still shows', () => {
    expect(bar(1000n, 1000n, 10)).toBe('█'.repeat(10))
    expect(bar(500n, 1000n, 10)).toBe('█'.repeat(5))
    expect(bar(1n, 1_000_000n, 10)).toBe('▏')
    expect(bar(0n, 1000n, 10)).toBe('')
  })

  test('draws a line a day with aligned amounts', () => {
    const text = drawDays(
      [
        { day: '2026-02-28', msats: 1_500n },
        { day: '2026-03-01', msats: 21_000n },
      ],
      8,
    )
    expect(text.split('\n')).toEqual(['2026-02-28  ▌         1.500 sats', '2026-03-01  ████████     21 sats'])
  })
})

test('ledger accounts are told in words', () => {
  expect(['equity/funding', 'equity/withdrawal', 'expense/fee', 'income/job', `deposit/job:${'a'.repeat(64)}`].map(accountWords)).toEqual([
    'put in by you',
    'taken out by you',
    'fee',
    'earned: job',
    'deposit for job:aaaaaaaaaaaa',
  ])
})
