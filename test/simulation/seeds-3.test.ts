/** Whole nodes on virtual time: whatever the network and the kills of a seed do, the books are right in the end. */
import { playSeeds } from './seeds.ts'

playSeeds(3)
