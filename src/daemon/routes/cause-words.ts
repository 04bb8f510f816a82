/** What caused a movement of sats, in words. Pure: who adds a cause, or a form of its id, adds its words here. */
import {
  actionKey,
  breakForm,
  fillKeys,
  gatherForm,
  type KeyForm,
  nutzapKey,
  nwcCause,
  payoutKey,
  reclaimKey,
  rentalKey,
  requestCause,
  rotationKey,
} from '../../store/keys.ts'
import type { Cause } from '../../store/money/ledger.ts'

/** By the type of the cause, where its id is of none of the forms below. */
const TYPES: Readonly<Record<Cause['type'], string>> = {
  job: 'a job that this node sold',
  lease: 'a machine that this node rented out',
  purchase: 'a job that was bought',
  tick: 'the rent of a tick',
  action: 'an action of an agent',
  zap: 'a zap',
  owner: 'your own order',
  transfer: 'coins changed within the wallet',
}

/** What ids of some causes say besides. */
const FORMS: readonly { readonly form: Pick<KeyForm, 'idIn'>; readonly words: string }[] = [
  { form: nwcCause, words: 'a program that uses this wallet (NWC)' },
  { form: requestCause, words: 'a payment request of yours that was paid' },
  { form: payoutKey, words: 'a standing payout' },
  { form: rentalKey, words: 'a machine that was rented' },
  { form: nutzapKey, words: 'a nutzap' },
  { form: actionKey, words: 'an action of an agent' },
  { form: reclaimKey, words: 'a token that was taken back' },
  { form: breakForm, words: 'coins changed for a payment' },
  { form: gatherForm, words: 'small coins made one' },
  { form: rotationKey, words: 'coins moved out of an old keyset' },
  { form: fillKeys, words: 'brought from your Lightning wallet' },
]

/** Ids that are names. */
const NAMES: Readonly<Record<string, string>> = { restore: 'found or missed at a restore' }

export function causeWords({ type, id }: Cause): string {
  const words = FORMS.find(({ form }) => form.idIn(id) !== undefined)?.words
  return words ?? NAMES[id] ?? TYPES[type]
}
