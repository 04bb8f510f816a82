/** `pylon runtime`: machines of this node and of others, rented, steered and given back. */

import { defineGroup } from '../command.ts'
import { rentCommands } from './runtime-rent.ts'
import { steerCommands } from './runtime-steer.ts'

/** `pylon runtime ...` */
export const runtimeCommand = defineGroup('runtime', 'Machines: run commands and agents on this node or rent them elsewhere', [
  ...rentCommands,
  ...steerCommands,
])
