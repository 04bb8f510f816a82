/** `pylon runtime` before there is one: offers, provision, run, what was rented, images. */
import type { Argv } from 'yargs'
import { formatSats, msats } from '../../base/amounts.ts'
import { PylonError } from '../../base/errors.ts'
import { given } from '../../base/given.ts'
import { runtimesRoutes } from '../../control/contract/runtimes.ts'
import { PROVIDERS } from '../agent/provider-flags.ts'
import { type ArgsOf, ask, callNode, defineCommand, defineGroup } from '../command.ts'
import { flagOption, limitOf, limitOption, textOption } from '../options.ts'
import { warn } from '../terminal/output.ts'
import { clockTime, drawList, relativeTime, right, shortId } from '../terminal/table.ts'
import { anyGiven, envOf, manyIf, one, textFrom, wholeNumberIf } from '../terminal/values.ts'
import {
  command,
  drawRuntime,
  type Fields,
  type Paid,
  PROTOCOLS,
  printOutcome,
  runtimeCall,
  shellOf,
  shellOption,
  textOf,
  withPrice,
  wordsOf,
} from './runtime-call.ts'

function withMachine<T>(yargs: Argv<T>) {
  return withPrice(yargs)
    .option('provider', { choices: PROVIDERS, describe: 'The substrate (that of the class, else local)' })
    .option('class', textOption('The runtime class, as offers name it'))
    .option('name', textOption('A name of your own; a volume is found again by it'))
    .option('lease', textOption('Seconds to rent it for (the shortest that the class has)'))
    .option('env', textOption('NAME=VALUE for the command inside; NAME=@FILE keeps it out of ps; may be repeated'))
    .option('image', textOption('Image alias, where the substrate has images'))
    .option('target', textOption('Cluster member'))
    .option('cpus', textOption('CPUs, at most what the class gives'))
    .option('memory-mib', textOption('Memory, at most what the class gives'))
    .option('disk-gib', textOption('Root disk, at most what the class gives'))
    .option('spawner-url', textOption('microvm: one of the spawners that the node lists'))
}

type MachineArgs = ArgsOf<typeof withMachine>

function machineFields(args: MachineArgs, provider: string | undefined): Fields {
  if (args.spawnerUrl !== undefined && provider !== 'microvm') throw new PylonError('usage', '--spawner-url needs --provider microvm.')
  return given({
    provider,
    runtime_class: args.class,
    name: args.name,
    lease_seconds: wholeNumberIf(args.lease, '--lease'),
    env: envOf(args.env),
    image: args.image,
    target: args.target,
    resources: anyGiven({
      vcpu_count: wholeNumberIf(args.cpus, '--cpus'),
      memory_mib: wholeNumberIf(args.memoryMib, '--memory-mib'),
      root_disk_gib: wholeNumberIf(args.diskGib, '--disk-gib'),
    }),
    microvm: anyGiven({ spawner_url: args.spawnerUrl }),
  })
}

/** The provider that was named, else that of the class as its node offers it. */
async function providerOf(args: MachineArgs): Promise<string | undefined> {
  if (args.provider !== undefined || args.class === undefined || args.local || args.server === undefined) return args.provider
  const filter = given({ server: one(args.server, '--server'), class: args.class, full: 'true' as const })
  const { value } = await callNode(args, runtimesRoutes.listOffers, filter)
  const [offer] = value.offers
  if (offer !== undefined) return offer.provider
  throw new PylonError('no_offer', `The node offers no class ${args.class}: name its --provider, or look at: pylon runtime offers`)
}

const provision = defineCommand({
  command: 'provision',
  describe: 'Start a runtime that serves an agent; pays the lease within --max-sats where one is asked',
  builder: (yargs) =>
    withMachine(yargs)
      .option('protocol', { choices: PROTOCOLS, default: 'acp' as const, describe: 'How the agent inside is spoken to' })
      .option('command', textOption('The agent process (that of the class by default)'))
      .option('keep', flagOption('Keep its volume when it is torn down'))
      .option('relay', textOption('A relay for the agent; may be repeated')),
  handler: async (args) => {
    const { protocol, keep } = args
    const machine = machineFields(args, (await providerOf(args)) ?? 'local')
    const agent = given({ entry_command: args.command, relay_urls: manyIf(args.relay) })
    const fields = { command: 'provision', protocol, keep, ...machine, ...agent }
    await command(args, fields, (done) => `${drawRuntime(done.runtime)}\n\n${drawCost(done)}${howOn(done)}`)
  },
})

function drawCost({ paid_msats }: Paid): string {
  return paid_msats > 0n ? `Paid ${formatSats(paid_msats)}.\n` : ''
}

function howOn({ runtime }: Paid): string {
  return `Prompt it: pylon runtime prompt ${runtime.runtime_id} TEXT\nEnd it: pylon runtime teardown ${runtime.runtime_id}`
}

const run = defineCommand({
  command: 'run [shell..]',
  describe: 'Run one command in a fresh runtime: runtime run -- CMD; exit code and output come back',
  builder: (yargs) =>
    withMachine(yargs)
      .positional('shell', shellOption)
      .option('run-timeout', textOption('Seconds that it may take inside (600)'))
      .option('artifact', textOption('A pattern of files to collect from $PYLON_ARTIFACTS_DIR; may be repeated'))
      .option('keep', flagOption('Leave the runtime for a look until it is torn down')),
  handler: async (args) => {
    const words = wordsOf(args, 'run -- CMD')
    const answer = await runtimeCall(args, {
      command: 'run',
      entry_command: words.length === 1 ? textFrom(words[0] ?? '') : shellOf(words),
      keep: args.keep,
      ...machineFields(args, await providerOf(args)),
      ...given({ timeout_s: wholeNumberIf(args.runTimeout, '--run-timeout'), artifact_globs: manyIf(args.artifact) }),
    })
    const result = printOutcome(args, answer)
    if (args.json) return
    if (textOf(result['message']) !== '' && result['exit_code'] !== 0) warn(textOf(result['message']))
    if (textOf(result['error']) !== '')
      warn(`${textOf(result['error'])}: pylon runtime collect ${answer.value.runtime.runtime_id} --output stdout`)
    process.stderr.write(drawCost(answer.value))
  },
})

const offers = defineCommand({
  command: 'offers',
  describe: 'Machines that nodes rent out, the cheapest first',
  builder: (yargs) =>
    yargs
      .option('server', textOption('Only those of this npub'))
      .option('region', textOption('Only those of this region'))
      .option('protocol', { choices: PROTOCOLS, describe: 'Only those that speak it' })
      .option('provider', { choices: PROVIDERS, describe: 'Only those on this substrate' })
      .option('class', textOption('Only those of this class'))
      .option('max-price', textOption('Sats an hour at most'))
      .option('full', flagOption('Also those with nothing free now')),
  handler: async (args) => {
    const maxPrice = wholeNumberIf(args.maxPrice, '--max-price', 0)
    const filter = given({
      server: args.server,
      region: args.region,
      protocol: args.protocol,
      provider: args.provider,
      class: args.class,
      max_msats_per_hour: maxPrice === undefined ? undefined : String(maxPrice * 1000),
      full: args.full ? ('true' as const) : undefined,
    })
    await ask(args, runtimesRoutes.listOffers, filter, ({ offers }) =>
      drawList(offers, NO_OFFER, OFFER_COLUMNS, (offer) => [
        offer.runtime_class,
        offer.provider,
        offer.region,
        offer.protocols.join(', ') || 'runs only',
        formatSats(offer.price_msats_per_hour),
        `${offer.capacity_free}/${offer.capacity_total}`,
        offer.isolated ? 'yes' : 'no',
        offer.server,
      ]),
    )
  },
})

const NO_OFFER = 'Nobody on the relays of this node offers such a machine; try other filters, or --full.'
const OFFER_COLUMNS = ['CLASS', 'PROVIDER', 'REGION', 'PROTOCOLS', right('AN HOUR'), right('FREE'), 'ISOLATED', 'SERVER']

const rentals = defineCommand({
  command: 'rentals',
  describe: 'What you asked of machines, here and elsewhere, and what it cost',
  builder: (yargs) => yargs.option('limit', limitOption('How many (50)')),
  handler: (args) =>
    ask(args, runtimesRoutes.listRentals, limitOf(args), ({ rentals }) =>
      drawList(rentals, NO_RENTAL, RENTAL_COLUMNS, (rental) => [
        relativeTime(rental.created_at, Date.now()),
        rental.command,
        rental.reason === null ? rental.state : `${rental.state}: ${rental.reason.slice(0, 40)}`,
        formatSats(msats(rental.paid_msats - rental.refunded_msats)),
        rental.runtime_id ?? '-',
        shortId(rental.server),
        rental.lease_ends_at === null ? '-' : clockTime(rental.lease_ends_at),
      ]),
    ),
})

const NO_RENTAL = 'Nothing was asked for yet; try: pylon runtime run -- uname -a'
const RENTAL_COLUMNS = ['ASKED', 'COMMAND', 'STATE', right('PAID'), 'RUNTIME', 'SERVER', 'LEASE UNTIL (UTC)']

const build = defineCommand({
  command: 'build [kind]',
  describe: 'Make the images of Incus on this machine, with project, profile and guest program: debian for agents, busybox for runs',
  builder: (yargs) =>
    yargs
      .positional('kind', { choices: ['debian', 'busybox'] as const, describe: 'Only this one' })
      .option('suite', textOption('Of Debian (bookworm)'))
      .option('mirror', textOption('Of Debian')),
  handler: (args) => {
    const order = given({ kind: args.kind, suite: args.suite, mirror: args.mirror })
    return ask(args, runtimesRoutes.buildImage, order, ({ images, guest_dir, created }) =>
      [
        ...images.map(({ alias, fingerprint }) => `The image ${alias} is ${fingerprint.slice(0, 12)}.`),
        ...(guest_dir === null ? [] : [`The guest program is in ${guest_dir}.`]),
        ...(created.length === 0 ? [] : [`Made in Incus: ${created.join(', ')}.`]),
      ].join('\n'),
    )
  },
})

const image = defineGroup('image', 'Images that runtimes of Incus start from', [build])

export const rentCommands = [provision, run, offers, rentals, image]
