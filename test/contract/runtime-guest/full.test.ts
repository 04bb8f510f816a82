import { describeGuest, fullGuest } from './contract.ts'

describeGuest('the full guest', fullGuest)
