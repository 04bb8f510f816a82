/** `pylon config`: shows and changes config.toml; a running node takes a change at once. */
import { stringify as toToml } from 'smol-toml'
import { getConfigValue, loadConfig, setConfigValue } from '../../base/config.ts'
import { isPylonError } from '../../base/errors.ts'
import { callRoute } from '../../control/client.ts'
import { nodeRoutes } from '../../control/contract/node.ts'
import { defineCommand, defineGroup, homeOf, homesOf, type NodeHome, stoppedHome } from '../command.ts'
import { argument } from '../options.ts'
import { json, printFacts, warn } from '../terminal/output.ts'

const showCommand = defineCommand({
  command: 'show',
  describe: 'Every key with its value, defaults included',
  handler: async (args) => {
    const { home, network } = await meantHome(args)
    const config = loadConfig(home.config)
    printFacts(args, { network, ...config }, toToml(config).trimEnd())
  },
})

const getCommand = defineCommand({
  command: 'get <key>',
  describe: 'One value by its dotted key',
  builder: (yargs) => yargs.positional('key', argument()),
  handler: async (args) => {
    const { home, network } = await meantHome(args)
    const value = getConfigValue(loadConfig(home.config), args.key)
    printFacts(args, { network, key: args.key, value }, typeof value === 'string' ? value : json(value))
  },
})

const setCommand = defineCommand({
  command: 'set <key> <value>',
  describe: 'Set one value (TOML, or plain text); refused when it is not valid',
  builder: (yargs) => yargs.positional('key', argument()).positional('value', argument()),
  handler: async (args) => {
    const { home, network } = await meantHome(args)
    const { statusIfRunning } = await import('../../daemon/launch/start.ts')
    const { withHome } = await import('../../daemon/offline/with-home.ts')
    const isRunning = (await statusIfRunning(home)) !== undefined
    const set = () => {
      try {
        return setConfigValue(home.config, args.key, args.value)
      } catch (error) {
        // A file that is no TOML at all: loading it says so in words.
        if (!isPylonError(error)) loadConfig(home.config)
        throw error
      }
    }
    const value = getConfigValue(isRunning ? set() : await withHome(home, set), args.key)
    const late = isRunning ? (await callRoute(home.socket, nodeRoutes.reload, {})).value.after_restart : []
    printFacts(args, { network, key: args.key, value, after_restart: late }, `${args.key} = ${json(value)}`)
    if (late.length > 0) warn(`${late.join(', ')} takes effect with: pylon restart`)
  },
})

const pathCommand = defineCommand({
  command: 'path',
  describe: 'Where config.toml is',
  handler: async (args) => {
    const { home, network } = await meantHome(args)
    printFacts(args, { network, path: home.config }, home.config)
  },
})

export const configCommand = defineGroup('config', 'Show and change the configuration', [showCommand, getCommand, setCommand, pathCommand])

/** The home of the node that runs, else of the one that ran, else the live one. */
async function meantHome(args: { sandbox: boolean }): Promise<NodeHome> {
  if (args.sandbox) return homeOf(args)
  const { statusIfRunning } = await import('../../daemon/launch/start.ts')
  for (const one of homesOf(args)) {
    try {
      if ((await statusIfRunning(one.home)) !== undefined) return one
    } catch (error) {
      if (!isPylonError(error)) throw error
    }
  }
  return stoppedHome(args)
}
