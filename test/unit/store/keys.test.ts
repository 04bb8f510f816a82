import { expect, it } from 'vitest'
import {
  JOB_ID_LENGTH,
  jobFeedbackMessage,
  jobInvoiceKey,
  jobResultMessage,
  refundTokenKey,
  rentalPaymentKey,
} from '../../../src/store/keys.ts'
import { Store } from '../../../src/store/store.ts'

const ID = 'ab'.repeat(32)

it('keys are made of an id by code and by SQL alike, and give it back', () => {
  const store = Store.open(':memory:')
  const key = jobInvoiceKey.of(ID)
  expect(key).toBe(`job:${ID}:invoice`)
  expect(jobInvoiceKey.idIn(key)).toBe(ID)
  expect(jobInvoiceKey.idIn(`job:${ID}:token`)).toBeUndefined()
  expect(store.sql(`SELECT ${jobInvoiceKey.sql('?')} AS key`).get(ID)).toEqual({ key })
  const message = `${jobFeedbackMessage.of(ID)}:success`
  expect(store.sql(`SELECT ${jobFeedbackMessage.idSql('?', JOB_ID_LENGTH)} AS id`).get(message)).toEqual({ id: ID })
  const isIn = store.sql(`SELECT ${jobFeedbackMessage.isIn('@key')} AS feedback, ${jobResultMessage.isIn('@key')} AS result`)
  expect(isIn.get({ key: message })).toEqual({ feedback: 1n, result: 0n })
  expect(isIn.get({ key: jobResultMessage.of(ID) })).toEqual({ feedback: 0n, result: 1n })
  store.close()
})

it('keys that were stored before stay what they were', () => {
  expect(refundTokenKey('purchase:1', 'cashuB')).toBe('purchase:1:refund:0f030269f039c2ba')
  expect(rentalPaymentKey('r', '1000')).toBe('rental:r:pay:40510175845988f1')
})
